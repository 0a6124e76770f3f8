use proptest::prelude::*;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::encode::encode;
use redis_protocol::resp2::types::{OwnedFrame, Resp2Frame as _};

use super::*;

fn written(words: &[Vec<u8>]) -> Vec<u8> {
    let frame = OwnedFrame::Array(words.iter().cloned().map(OwnedFrame::BulkString).collect());
    let mut bytes = vec![0; frame.encode_len(false)];
    encode(&mut bytes, &frame, false).unwrap();
    bytes
}

type Shown = Vec<Vec<Vec<u8>>>;

/// What comes of bytes that arrive in pieces of these sizes: all bytes as they were taken, and each command that was shown.
fn cut(bytes: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, Shown), Malformed> {
    let mut commands = Commands::default();
    let (mut arrived, mut taken, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = bytes;
    for piece in pieces.iter().copied().cycle() {
        if rest.is_empty() {
            return Ok((taken, shown));
        }
        let (now, later) = rest.split_at(piece.clamp(1, rest.len()));
        arrived.extend_from_slice(now);
        rest = later;
        loop {
            let len = match commands.next(&arrived)? {
                Step::More => break,
                Step::Pass(len) => len,
                Step::Command { len, words } => {
                    shown.push(words.iter().map(|word| arrived[word.clone()].to_vec()).collect());
                    len
                }
            };
            assert!(len > 0);
            taken.extend(arrived.drain(..len));
        }
        assert!(arrived.len() < LONGEST + LONGEST_LENGTH, "{} bytes are held back", arrived.len());
    }
    Ok((taken, shown))
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        9 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => (0_usize..3 * LONGEST).prop_map(|len| vec![b'\n'; len]),
    ]
}

proptest! {
    #[test]
    fn commands_are_found_wherever_they_are_cut_and_nothing_is_lost(
        commands in proptest::collection::vec(proptest::collection::vec(word(), 0..6), 0..8),
        pieces in proptest::collection::vec(1_usize..5000, 1..5),
    ) {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| written(words)).collect();
        let (taken, shown) = cut(&bytes, &pieces).unwrap();
        prop_assert!(taken == bytes);
        let short: Vec<_> = commands.into_iter().filter(|words| written(words).len() <= LONGEST).collect();
        prop_assert!(shown == short);
    }

    #[test]
    fn what_is_shown_is_what_a_parser_of_redis_reads(bytes in "(\\*[0-3]\r\n|\\$[0-3]\r\n|[a-c]{0,3}\r\n){0,8}") {
        let mut commands = Commands::default();
        if bytes.starts_with('*') && let Ok(Step::Command { len, words }) = commands.next(bytes.as_bytes()) {
            let (frame, read) = decode(bytes.as_bytes()).unwrap().unwrap();
            let ours = words.into_iter().map(|word| OwnedFrame::BulkString(bytes.as_bytes()[word].to_vec()));
            prop_assert_eq!((frame, read), (OwnedFrame::Array(ours.collect()), len));
        }
    }

    #[test]
    fn whatever_arrives_is_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1_usize..20) {
        if let Ok((taken, _)) = cut(&bytes, &[piece]) {
            prop_assert!(bytes.starts_with(&taken));
        }
    }
}

fn first(bytes: &[u8]) -> Result<Step, Malformed> {
    Commands::default().next(bytes)
}

#[test]
fn a_length_is_believed_only_within_the_bounds_of_redis_and_costs_nothing() {
    assert_eq!(first(b"*1048577\r\n"), Err(Malformed::Length));
    assert_eq!(first(b"*9223372036854775807\r\n"), Err(Malformed::Length));
    assert_eq!(first(b"*1\r\n$536870913\r\n"), Err(Malformed::Length));
    assert_eq!(first(b"*1\r\n$-1\r\n"), Err(Malformed::Length));
    assert_eq!(first(b"*1\r\n$+1\r\na\r\n"), Err(Malformed::Length));
    assert_eq!(first(b"*1000000000000000"), Err(Malformed::Length));
    assert_eq!(first(b"*1\n$1\r\na\r\n"), Err(Malformed::Length));
    assert_eq!(first(b"*\n"), Err(Malformed::Length));
    assert_eq!(first(b"*1\r\n:1\r\n"), Err(Malformed::Length));
    // Half a gibibyte is announced: what is there passes, and the rest as it comes.
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\n";
    assert_eq!(first(head), Ok(Step::Pass(head.len())));
    assert_eq!(first(b"*1048576\r\n"), Ok(Step::More));
    assert_eq!(first(b"*-1\r\n"), Ok(Step::Command { len: 5, words: vec![] }));
}

#[test]
fn a_line_of_words_is_a_command_and_garbage_is_not() {
    assert_eq!(first(b"GET  a\r\nPING\r\n"), Ok(Step::Command { len: 8, words: vec![0..3, 5..6] }));
    assert_eq!(first(b"GET \"a b\"\r\n"), Ok(Step::Command { len: 11, words: vec![] }));
    assert_eq!(first(b"\r\n"), Ok(Step::Command { len: 2, words: vec![] }));
    assert_eq!(first(b"PING"), Ok(Step::More));
    assert_eq!(first(&[b'a'; LONGEST]), Err(Malformed::Line));
    assert_eq!(first(b"\x16\x03\x01\x02\x00\x01"), Err(Malformed::Unknown));
    assert_eq!(first(b"$3\r\nGET\r\n"), Err(Malformed::Unknown));
    assert_eq!(first(b"*1\r\n$1\r\nabc"), Err(Malformed::End));
}
