//! Tells by its first bytes whether a peer speaks HTTP/2 or HTTP/1.1, where both are spoken.

use std::io;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::connection::Connection;

/// How every HTTP/2 connection begins, as far as no request of HTTP/1.1 does.
const HTTP2: &[u8] = b"PRI ";

/// The connection, that knows what its peer speaks. One that ends before that is known is left to whoever serves HTTP/2.
///
/// # Errors
/// Why it broke.
pub(super) async fn sniff(mut connection: Connection) -> io::Result<Connection> {
    match connection.alpn() {
        Some(b"h2") => return Ok(connection),
        Some(b"http/1.1") => return Ok(connection.having_read(Bytes::new(), true)),
        _ => {}
    }
    let mut head = [0; HTTP2.len()];
    let mut length = 0;
    while length < head.len() && HTTP2.starts_with(&head[..length]) {
        match connection.read(&mut head[length..]).await? {
            0 => break,
            more => length += more,
        }
    }
    let is_http1 = !HTTP2.starts_with(&head[..length]);
    Ok(connection.having_read(Bytes::copy_from_slice(&head[..length]), is_http1))
}
