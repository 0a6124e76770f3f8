//! Profiles of a principal that works.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use tiphys_shared::process::profile::Profile;

use crate::free_port;
use crate::serve::{DEADLINE, stage};

/// Status and body of a page on loopback.
fn get(port: u16, path: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}

fn text(port: u16, path: &str) -> (u16, String) {
    let (status, body) = get(port, path);
    (status, String::from_utf8(body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_that_works_is_profiled_and_works_on() {
    let stage = stage().await;
    let [metrics, profiles] = [free_port(), free_port()];
    let ports = [format!("--metrics-port={metrics}"), format!("--pprof-port={profiles}")];
    let (mut principal, _) = stage.control.principal_with(&[&ports[0], &ports[1], "--healthz-port=0"]);

    assert!(text(profiles, "/debug/pprof/").1.contains("/debug/pprof/profile?seconds="));
    assert_eq!(text(profiles, "/debug/pprof/profile?seconds=0").0, 400);
    let (status, heap) = text(profiles, "/debug/pprof/heap");
    assert!(status == 404 && heap.contains("only /debug/pprof/profile"), "{status}: {heap}");

    // Somebody who wants a figure all the time.
    let done = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&done);
    let load = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            assert_eq!(text(metrics, "/metrics").0, 200);
        }
    });
    // Whoever asks for a long one has the turn until he goes away.
    let mut patient = TcpStream::connect((Ipv4Addr::LOCALHOST, profiles)).unwrap();
    write!(patient, "GET /debug/pprof/profile?seconds=120 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    principal.wait_for("a profile is taken");
    let (status, reason) = text(profiles, "/debug/pprof/profile?seconds=1");
    assert!(status == 409 && reason.contains("already"), "{status}: {reason}");
    drop(patient);
    let begin = Instant::now();
    let (status, body) = loop {
        let (status, body) = get(profiles, "/debug/pprof/profile?seconds=2");
        if status != 409 {
            break (status, body);
        }
        assert!(begin.elapsed() < DEADLINE, "the turn never came back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    done.store(true, Ordering::Relaxed);
    load.join().unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));

    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut bytes).unwrap();
    let profile = Profile::decode(bytes.as_slice()).unwrap();
    let program = &profile.string_table[usize::try_from(profile.mapping[0].filename).unwrap()];
    assert!(program.ends_with("/tiphys"), "{program}");
    assert!(!profile.sample.is_empty());
    let of_program: BTreeSet<u64> = profile
        .location
        .iter()
        .filter(|location| location.mapping_id == 1)
        .map(|location| location.id)
        .collect();
    let inside = |id: &&u64| of_program.contains(id);
    let deepest = profile.sample.iter().map(|sample| sample.location_id.iter().filter(inside).count()).max();
    assert!(deepest > Some(8), "stacks are cut off: {profile:?}");
    assert!(profile.duration_nanos >= 2_000_000_000, "{}", profile.duration_nanos);
    // It is not stopped, and can be looked at again.
    assert_eq!(text(metrics, "/metrics").0, 200);
    assert_eq!(get(profiles, "/debug/pprof/profile?seconds=1").0, 200);
    principal.signal("-TERM");
    assert_eq!(principal.exit_code(), Some(0));
}
