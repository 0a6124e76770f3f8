use std::path::{Path, PathBuf};

use super::*;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<(PathBuf, Vec<u8>)> =
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn nothing_of_the_corpus_breaks_anything() {
    for (target, body) in TARGETS {
        let corpus = corpus(target);
        assert!(corpus.len() > 5, "{target} has a corpus of {} files", corpus.len());
        for (path, bytes) in corpus {
            // Tells which one it was if it panics; tests show it only then.
            println!("{}", path.display());
            body(&bytes);
            // What arrives may be cut off anywhere.
            for end in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
                body(&bytes[..end]);
            }
        }
    }
}

#[test]
fn any_bytes_of_the_corpus_do_no_harm_to_other_targets() {
    let all: Vec<Vec<u8>> =
        TARGETS.iter().flat_map(|(target, _)| corpus(target)).map(|(_, bytes)| bytes).collect();
    for (_, body) in TARGETS {
        for bytes in &all {
            body(bytes);
        }
    }
}

/// Changes some bytes as a fuzzer would: flips, numbers, pieces of another input, repetitions, ends.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..bytes.len() + 1);
        let end = (at + rng.usize(..24)).min(bytes.len());
        match rng.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 => {
                const WORDS: [&[u8]; 12] = [
                    b"null",
                    b"-1",
                    b"1e308",
                    b"18446744073709551615",
                    b"{}",
                    b"[]",
                    b"\"\"",
                    b"\xff\xfe",
                    b"\0",
                    b"\\u0000",
                    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
                    b"\xf0\x9f\x98\x80",
                ];
                drop(bytes.splice(at..end, WORDS[rng.usize(..WORDS.len())].iter().copied()));
            }
            3 if !other.is_empty() => {
                let from = rng.usize(..other.len());
                let to = (from + rng.usize(..64)).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            4 => {
                let piece = bytes[at..end].to_vec();
                let times = rng.usize(1..4);
                drop(bytes.splice(at..at, piece.repeat(times)));
            }
            5 => drop(bytes.drain(at..end)),
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
    }
}

#[test]
fn what_is_made_from_the_corpus_at_random_does_no_harm() {
    // Enough to notice a careless change; a fuzzer that sees what it reaches finds more.
    const ROUNDS: usize = 40;
    for (target, body) in TARGETS {
        let corpus = corpus(target);
        for (number, (path, bytes)) in corpus.iter().enumerate() {
            for round in 0..ROUNDS {
                let mut rng = fastrand::Rng::with_seed((number * ROUNDS + round) as u64);
                let mut input = bytes.clone();
                mutate(&mut input, &corpus[rng.usize(..corpus.len())].1, &mut rng);
                let outcome = std::panic::catch_unwind(|| body(&input));
                assert!(outcome.is_ok(), "round {round} of {} breaks {target}: {:?}", path.display(), input);
            }
        }
    }
}

#[test]
fn what_is_nested_ever_so_deep_is_refused_and_does_not_exhaust_the_stack() {
    // A thread of a runtime has two mebibytes of stack.
    let deep = |open: &str, close: &str| [open.repeat(200_000), close.repeat(200_000)].concat();
    for text in [deep("[", "]"), deep("{\"a\":", "}"), "[".repeat(1_000_000)] {
        for (_, body) in TARGETS {
            let text = text.clone();
            std::thread::Builder::new()
                .stack_size(1 << 20)
                .spawn(move || body(text.as_bytes()))
                .unwrap()
                .join()
                .unwrap();
        }
    }
}

#[test]
fn the_fuzzer_runs_every_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/src/bin");
    let mut programs: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    programs.sort();
    let mut targets = TARGETS.map(|(name, _)| name.to_owned());
    targets.sort();
    assert_eq!(programs, targets);
}
