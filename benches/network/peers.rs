//! The two processes that talk to each other: this program itself, started anew inside a namespace.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Connections that a server takes at one time, and a caller makes.
const AT_ONCE: usize = 4;

/// What is sent at one time.
const PIECE: usize = 128 << 10;

/// First byte of a connection that only brings bytes.
const BYTES: u8 = b'b';

/// First byte of a connection that wants one back.
const CALL: u8 = b'c';

/// This program.
pub fn program() -> String {
    std::env::current_exe().unwrap().display().to_string()
}

/// What this process is, by its arguments, if it is one of the two.
pub fn role<'a>(arguments: &'a [&'a str]) -> Option<Box<dyn FnOnce() + 'a>> {
    match arguments {
        ["serve", port] => Some(Box::new(|| serve(port.parse().unwrap()))),
        ["send", to, seconds] => Some(Box::new(|| println!("{}", send(to.parse().unwrap(), duration(seconds))))),
        ["call", to, seconds] => Some(Box::new(|| println!("{}", call(to.parse().unwrap(), duration(seconds))))),
        _ => None,
    }
}

fn duration(seconds: &str) -> Duration {
    Duration::from_secs_f64(seconds.parse().unwrap())
}

/// Answers until it is killed.
fn serve(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let answer = |listener: TcpListener| {
        let mut buffer = vec![0; PIECE];
        while let Ok((stream, _)) = listener.accept() {
            // Whoever goes before the answer was not measured.
            let _ = take(stream, &mut buffer);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let listener = listener.try_clone().unwrap();
            scope.spawn(move || answer(listener));
        }
    });
}

fn take(mut stream: TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut total: u64 = 0;
    if kind[0] == CALL {
        return stream.write_all(&kind);
    }
    loop {
        match stream.read(buffer)? {
            0 => return stream.write_all(&total.to_be_bytes()),
            count => total += count as u64,
        }
    }
}

/// Bits per second that arrive there on one connection.
fn send(to: SocketAddr, time: Duration) -> f64 {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(&[BYTES]).unwrap();
    let piece = vec![7; PIECE];
    let began = Instant::now();
    while began.elapsed() < time {
        stream.write_all(&piece).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut total = [0; 8];
    stream.read_exact(&mut total).unwrap();
    8.0 * u64::from_be_bytes(total) as f64 / began.elapsed().as_secs_f64()
}

/// Connections per second that carry a byte each way; the server closes them.
fn call(to: SocketAddr, time: Duration) -> f64 {
    let began = Instant::now();
    let one_after_the_other = || {
        let mut count = 0;
        while began.elapsed() < time {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(&[CALL]).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, [CALL]);
            count += 1;
        }
        count
    };
    let count: u32 = thread::scope(|scope| {
        let callers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(one_after_the_other)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    f64::from(count) / began.elapsed().as_secs_f64()
}
