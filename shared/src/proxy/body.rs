//! Bodies that pass piece by piece, and those that have to be there as a whole.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

/// Why a body broke off.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of a request or an answer, wherever it comes from.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body as one of its kind.
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A body without anything in it.
pub fn empty() -> Body {
    boxed(http_body_util::Empty::new())
}

/// A body that is known.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    boxed(http_body_util::Full::new(bytes.into()))
}

/// Why a body is not there as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Partial {
    /// It is larger than it may be.
    #[error("it has more than {0} bytes")]
    TooLarge(usize),
    /// It broke off.
    #[error("it broke off: {0}")]
    Broken(BoxError),
}

/// All of a body that may have at most so many bytes.
///
/// # Errors
/// [`Partial`] if there is more of it, or less.
pub async fn whole(mut body: Body, most: usize) -> Result<Bytes, Partial> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Partial::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(Partial::TooLarge(most));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_whole_or_it_is_refused() {
        assert_eq!(whole(full("12345"), 5).await.unwrap(), "12345");
        assert!(matches!(whole(full("123456"), 5).await, Err(Partial::TooLarge(5))));
        let broken = http_body_util::StreamBody::new(futures::stream::iter([
            Ok(http_body::Frame::data(Bytes::from("1"))),
            Err(BoxError::from("gone")),
        ]));
        assert!(matches!(whole(boxed(broken), 5).await, Err(Partial::Broken(_))));
    }
}
