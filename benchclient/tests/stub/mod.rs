//! A small HTTP server that behaves well or badly on purpose, and how to run the program against it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does with a request for a key; chosen per test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    /// Stores and returns.
    Good,
    /// Refuses every third write with `503 overloaded` (problem+json) and keeps the connection.
    RefusesSomeWrites,
    /// Acknowledges, and changes a byte when it is read.
    Corrupts,
    /// Acknowledges, and returns a value that is too short.
    Shortens,
    /// Acknowledges, and returns a value with a byte too many.
    Lengthens,
    /// Acknowledges, and forgets.
    Forgets,
    /// Acknowledges the 20th write, and does not store it.
    LosesOneWrite,
    /// Stores every third write, and closes the connection instead of answering.
    StoresAndHangsUp,
    /// Closes the connection at every third write, and does not store it.
    DropsAndHangsUp,
    /// Says that every third write had no effect, and stores it.
    StoresWhatItRefuses,
    /// Once, at the 300th read, makes everybody wait for 600 ms.
    StallsOnce,
    /// Closes the connection instead of answering a read.
    HangsUp,
    /// Never answers a read.
    Silent,
    /// Says `500` with a page that is no problem+json, to writes.
    Broken,
    /// Answers, but is no node.
    Stranger,
    /// Answers `GET /GET/{key}` and `PUT /SET/{key}`, and nothing else.
    Other,
}

/// A server on a port of its own, until the test's process ends.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) state: Arc<State>,
}

/// What its connections share.
#[derive(Debug)]
pub(crate) struct State {
    mood: Mood,
    values: Mutex<HashMap<String, Vec<u8>>>,
    reads: AtomicUsize,
    writes: AtomicUsize,
    /// Paths of keys that were asked for, in order.
    pub(crate) asked: Mutex<Vec<String>>,
    /// The answer to `/v1/cluster`; `404` when there is none.
    pub(crate) cluster: Mutex<Option<String>>,
    /// The answer to `/admin/v1/status`; `404` when there is none.
    pub(crate) status: Mutex<Option<String>>,
    /// Sent with every answer about a key.
    pub(crate) extra_header: Mutex<String>,
    /// Held while a request for a key is served.
    serving: Mutex<()>,
}

impl Server {
    pub(crate) fn start(mood: Mood) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let state = Arc::new(State {
            mood,
            values: Mutex::default(),
            reads: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            asked: Mutex::default(),
            cluster: Mutex::default(),
            status: Mutex::default(),
            extra_header: Mutex::default(),
            serving: Mutex::default(),
        });
        let (counted, shared) = (Arc::clone(&connections), Arc::clone(&state));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&shared);
                // A client that goes away ends its thread; there is nothing to report.
                thread::spawn(move || drop(state.serve(&stream)));
            }
        });
        Server { address, connections, state }
    }

    pub(crate) fn bench(&self, arguments: &[&str]) -> Output {
        bench_at(&self.address.to_string(), arguments)
    }
}

/// What becomes of a request.
enum Answer {
    With(u16, Vec<u8>),
    HangUp,
}

impl State {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                if header.trim().is_empty() {
                    break;
                }
                if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let (method, path) = first.split_once(' ').unwrap();
            let path = path.split(' ').next().unwrap().to_owned();
            let (answer, extra) = match self.view(&path) {
                Some((status, body)) => (Answer::With(status, body), String::new()),
                None => (self.key(method, path, body), self.extra_header.lock().unwrap().clone()),
            };
            let Answer::With(status, body) = answer else { return Ok(()) };
            let head = format!("HTTP/1.1 {status} X\r\n{extra}Content-Length: {}\r\n\r\n", body.len());
            (&*stream).write_all(&[head.as_bytes(), &body].concat())?;
        }
    }

    /// Everything that is about no key.
    fn view(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        let view = |text: &Mutex<Option<String>>| match &*text.lock().unwrap() {
            Some(text) => (200, text.clone().into_bytes()),
            None => (404, Vec::new()),
        };
        match path {
            "/livez" if matches!(self.mood, Mood::Stranger | Mood::Other) => Some((404, b"what?".to_vec())),
            "/livez" => Some((200, b"ok\n".to_vec())),
            "/v1/cluster" => Some(view(&self.cluster)),
            "/admin/v1/status" => Some(view(&self.status)),
            "/metrics" => Some((404, Vec::new())),
            _ => None,
        }
    }

    fn key(&self, method: &str, path: String, body: Vec<u8>) -> Answer {
        self.asked.lock().unwrap().push(path.clone());
        let path = match self.mood {
            Mood::Other => path.replace("/SET/", "/GET/"),
            _ => path,
        };
        match method {
            "PUT" => self.write(path, body),
            "GET" => self.read(&path),
            _ => Answer::With(405, Vec::new()),
        }
    }

    fn write(&self, path: String, body: Vec<u8>) -> Answer {
        let turn = self.writes.fetch_add(1, Ordering::SeqCst);
        let store = || drop(self.values.lock().unwrap().insert(path, body));
        let third = turn.is_multiple_of(3);
        let problem = |code: &str| {
            let text =
                format!(r#"{{"code":"{code}","applied":"no","detail":"Too much at once.","hint":"Wait a second."}}"#);
            Answer::With(503, text.into_bytes())
        };
        match self.mood {
            Mood::RefusesSomeWrites if third => return problem("overloaded"),
            Mood::StoresWhatItRefuses if third => {
                store();
                return problem("overloaded");
            }
            Mood::StoresAndHangsUp if third => {
                store();
                return Answer::HangUp;
            }
            Mood::DropsAndHangsUp if third => return Answer::HangUp,
            Mood::Broken => return Answer::With(500, b"<html>oh</html>".to_vec()),
            Mood::LosesOneWrite if turn == 19 => {}
            _ => store(),
        }
        Answer::With(201, Vec::new())
    }

    fn read(&self, path: &str) -> Answer {
        let turn = self.reads.fetch_add(1, Ordering::SeqCst);
        let _one_at_a_time = self.serving.lock().unwrap();
        let mut value = self.values.lock().unwrap().get(path).cloned();
        match (self.mood, &mut value) {
            (Mood::Corrupts, Some(value)) => *value.last_mut().unwrap() ^= 1,
            (Mood::Shortens, Some(value)) => drop(value.pop()),
            (Mood::Lengthens, Some(value)) => value.push(0),
            (Mood::Forgets, _) => value = None,
            (Mood::HangsUp, _) => return Answer::HangUp,
            (Mood::Silent, _) => thread::sleep(Duration::from_secs(600)),
            (Mood::StallsOnce, _) if turn == 300 => thread::sleep(Duration::from_millis(600)),
            _ => {}
        }
        match value {
            Some(value) => Answer::With(200, value),
            None => Answer::With(404, br#"{"code":"key-not-found"}"#.to_vec()),
        }
    }
}

pub(crate) fn command(address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_benchclient"));
    command.args(["--addr", address]).args(arguments).env_remove("KV_URL").stdin(Stdio::null());
    command
}

pub(crate) fn bench_at(address: &str, arguments: &[&str]) -> Output {
    command(address, arguments).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
