//! A child process that can be killed and started again, and what it says.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

/// A process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// What it is called in reports.
    pub name: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    heard: Arc<Heard>,
    /// How often it was started.
    pub starts: u32,
    /// When it ended without being killed, with the last error that it told.
    pub ended: Vec<String>,
    ended_at: Option<Instant>,
}

#[derive(Debug)]
struct Heard {
    file: Mutex<File>,
    /// The last error.
    last: Mutex<String>,
    panics: Mutex<Vec<String>>,
    listens: watch::Sender<Option<SocketAddr>>,
}

impl Process {
    /// A process that does not run yet. Its words go into a file of the folder.
    ///
    /// # Errors
    /// If that file cannot be made.
    pub fn new(name: &str, program: &Path, arguments: Vec<String>, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let heard = Heard {
            file: Mutex::new(file),
            last: Mutex::default(),
            panics: Mutex::default(),
            listens: watch::channel(None).0,
        };
        Ok(Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments,
            log,
            child: None,
            heard: Arc::new(heard),
            starts: 0,
            ended: Vec::new(),
            ended_at: None,
        })
    }

    /// Starts it.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        self.heard.listens.send_replace(None);
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.heard.note(&format!("--- start {} at {}", self.starts, tiphys_shared::process::clock::now()));
        if let Some(output) = child.stdout.take() {
            tokio::spawn(listen(output, Arc::clone(&self.heard)));
        }
        if let Some(output) = child.stderr.take() {
            tokio::spawn(listen(output, Arc::clone(&self.heard)));
        }
        self.child = Some(child);
        self.ended_at = None;
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// If the system will not.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.look();
        if let Some(mut child) = self.child.take() {
            child.kill().await.with_context(|| format!("cannot kill {}", self.name))?;
            self.heard.note(&format!("--- killed at {}", tiphys_shared::process::clock::now()));
        }
        Ok(())
    }

    /// Whether it runs. If it has ended by itself this takes note of it.
    pub fn look(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                self.child = None;
                self.ended_at = Some(Instant::now());
                self.ended.push(format!("{} ended by itself, {status}: {}", self.name, self.heard.reason()));
                false
            }
            Err(error) => {
                self.ended.push(format!("{} cannot be looked at: {error}", self.name));
                false
            }
        }
    }

    /// Since when it has been gone without being killed.
    pub fn gone_since(&self) -> Option<Instant> {
        self.ended_at
    }

    /// The address that the last start listens on, once it has said so.
    pub fn listens(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.heard.listens.subscribe()
    }

    /// What it said when it panicked.
    pub fn panics(&self) -> Vec<String> {
        self.heard.panics.lock().clone()
    }

    /// Where its words are.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

async fn listen(output: impl AsyncRead + Unpin, heard: Arc<Heard>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        heard.note(&line);
        if line.contains("principal listens")
            && let Ok(line) = serde_json::from_str::<serde_json::Value>(&line)
            && let Some(address) = line.get("address").and_then(|it| it.as_str()?.parse().ok())
        {
            heard.listens.send_replace(Some(address));
        }
        if line.contains("panicked at") {
            heard.panics.lock().push(line);
        }
    }
}

impl Heard {
    fn note(&self, line: &str) {
        // A full disk is no reason to stop.
        _ = writeln!(self.file.lock(), "{line}");
        if line.starts_with("error: ") || line.contains("panicked at") {
            *self.last.lock() = line.to_owned();
        }
    }

    fn reason(&self) -> String {
        self.last.lock().clone()
    }
}
