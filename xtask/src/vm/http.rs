//! A small HTTP server on the loopback interface, which a guest finds at [`HOST`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Where a guest of QEMU's user network finds the host's loopback interface.
/// Source: QEMU, "Network emulation", "Using the user mode network stack".
pub(super) const HOST: &str = "10.0.2.2";
/// A request that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest request that is read.
const LONGEST: u64 = 64 << 10;

/// What is said to a request for a path.
pub(super) enum Answer {
    Text(String),
    /// Bytes of a media type.
    Bytes {
        media_type: String,
        bytes: Vec<u8>,
    },
    File(File),
    NotFound,
}

/// A server that answers until this process ends.
pub(super) struct Server {
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts one that says to a request for a path, without its query, what `answer` does.
    pub(super) fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> io::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answer.clone();
                // A guest that breaks off asks again.
                std::thread::spawn(move || serve(&stream, &*answer).ok());
            }
        });
        Ok(Server { address })
    }

    /// Where a guest finds it: a name and a port.
    pub(super) fn for_guests(&self) -> String {
        format!("{HOST}:{}", self.address.port())
    }
}

fn serve(stream: &TcpStream, answer: impl Fn(&str) -> Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.take(LONGEST)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (method, rest) = request.split_once(' ').unwrap_or_default();
    let path = rest.split([' ', '?']).next().unwrap_or_default();
    let (media_type, length, mut body): (String, u64, Box<dyn Read>) = match answer(path) {
        Answer::Text(text) => {
            ("text/plain".to_owned(), text.len() as u64, Box::new(io::Cursor::new(text.into_bytes())))
        }
        Answer::Bytes { media_type, bytes } => {
            (media_type, bytes.len() as u64, Box::new(io::Cursor::new(bytes)))
        }
        Answer::File(file) => ("application/octet-stream".to_owned(), file.metadata()?.len(), Box::new(file)),
        Answer::NotFound => {
            return write!(
                &*stream,
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
    };
    write!(
        &*stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    match method {
        "HEAD" => Ok(()),
        _ => io::copy(&mut body, &mut &*stream).map(drop),
    }
}
