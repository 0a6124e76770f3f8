//! Bodies that pass piece by piece.

use bytes::Bytes;
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
