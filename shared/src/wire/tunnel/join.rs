//! Two connections joined: what comes from one goes to the other, and so do their ends.
//!
//! Not [`tokio::io::copy_bidirectional`], which gives both directions up when one fails. A server may have said its last and
//! left while the client was still talking to it (`kubectl exec -i … -- head`): talking to it fails then, and what it has said
//! must arrive all the same.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long one direction may go on once the other has failed. Whoever has left has nothing more to say than what is here.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Joins two connections until both directions have ended, and tells how many bytes went from `left` to `right` and back.
///
/// # Errors
/// Why a direction broke. What either side said before has been passed on by then.
pub async fn join<L, R>(left: L, right: R) -> io::Result<(u64, u64)>
where
    L: AsyncRead + AsyncWrite,
    R: AsyncRead + AsyncWrite,
{
    let (left_reader, left_writer) = tokio::io::split(left);
    let (right_reader, right_writer) = tokio::io::split(right);
    let mut there = std::pin::pin!(pass(left_reader, right_writer));
    let mut back = std::pin::pin!(pass(right_reader, left_writer));
    tokio::select! {
        sent = &mut there => Ok((ended(sent, &mut back).await?, back.await?)),
        received = &mut back => {
            let received = ended(received, &mut there).await?;
            Ok((there.await?, received))
        }
    }
}

/// Hands on how a direction ended; if it failed, once the other has had its time.
async fn ended(outcome: io::Result<u64>, other: impl Future<Output = io::Result<u64>>) -> io::Result<u64> {
    if outcome.is_err() {
        // That it fails as well, or goes on, does not change what is told.
        _ = timeout(LAST_WORDS, other).await;
    }
    outcome
}

/// Copies one direction to its end, and then ends it at the other side too: after a failure as well, for what was passed on
/// before is still to arrive.
async fn pass(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) -> io::Result<u64> {
    let copied = tokio::io::copy(&mut reader, &mut writer).await;
    let shut = writer.shutdown().await;
    let copied = copied?;
    shut.map(|()| copied)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut client, left) = duplex(64);
        let (right, mut server) = duplex(64);
        let joined = tokio::spawn(join(left, right));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        server.write_all(b"the answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "the answer");
        assert_eq!(joined.await.unwrap().unwrap(), (8, 10));
    }

    #[tokio::test]
    async fn the_last_words_of_one_who_has_left_arrive() {
        let (mut client, left) = duplex(64);
        let (right, mut server) = duplex(64);
        server.write_all(b"last words").await.unwrap();
        drop(server);
        // There is something to say to whoever is gone, before anything is read.
        client.write_all(b"are you there").await.unwrap();
        assert!(join(left, right).await.is_err());
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
    }
}
