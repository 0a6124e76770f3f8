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
