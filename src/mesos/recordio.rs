//! RecordIO: each record is its length in decimal, a newline, and that many bytes.
use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Default limit for the length of a record. Offers of a thousand agents with long port lists are far below it.
pub const RECORD_LIMIT: usize = 64 << 20;

/// Digits of the largest possible length.
const LENGTH_DIGITS: usize = 20;

/// Codec that reads and writes records.
#[derive(Clone, Copy, Debug)]
pub struct RecordIo {
    limit: usize,
    /// Length of the record being read, once its header is complete.
    expected: Option<usize>,
}

/// Why a stream of records cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum RecordIoError {
    /// The connection failed.
    #[error("failed to read the stream")]
    Read(#[from] std::io::Error),
    /// The header of a record is not a length.
    #[error("expected the length of a record, found `{found}`")]
    Length {
        /// The bytes, converted to readable text.
        found: String,
    },
    /// The record is too long.
    #[error("a record of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Length of the record in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl RecordIo {
    /// A codec with a limit for one record, in bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, expected: None }
    }

    /// Removes the header from the buffer if it is complete, and returns the length.
    fn length(&self, source: &mut BytesMut) -> Result<Option<usize>, RecordIoError> {
        let Some(end) = source.iter().position(|byte| *byte == b'\n') else {
            if source.len() > LENGTH_DIGITS || source.iter().any(|byte| !byte.is_ascii_digit()) {
                return Err(not_a_length(source));
            }
            return Ok(None);
        };
        let header = &source[..end];
        let length = std::str::from_utf8(header)
            .ok()
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse::<usize>().ok())
            .ok_or_else(|| not_a_length(header))?;
        if length > self.limit {
            return Err(RecordIoError::TooLong { length, limit: self.limit });
        }
        source.advance(end + 1);
        Ok(Some(length))
    }
}

fn not_a_length(bytes: &[u8]) -> RecordIoError {
    let shown = &bytes[..bytes.len().min(40)];
    RecordIoError::Length { found: String::from_utf8_lossy(shown).into_owned() }
}

impl Decoder for RecordIo {
    type Item = Bytes;
    type Error = RecordIoError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, RecordIoError> {
        let length = match self.expected {
            Some(length) => length,
            None => match self.length(source)? {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        if source.len() < length {
            self.expected = Some(length);
            source.reserve(length - source.len());
            return Ok(None);
        }
        self.expected = None;
        Ok(Some(source.split_to(length).freeze()))
    }
}

impl Encoder<&[u8]> for RecordIo {
    type Error = RecordIoError;

    fn encode(&mut self, record: &[u8], target: &mut BytesMut) -> Result<(), RecordIoError> {
        target.extend_from_slice(record.len().to_string().as_bytes());
        target.extend_from_slice(b"\n");
        target.extend_from_slice(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, RecordIoError> {
        let (mut codec, mut buffer, mut records) = (RecordIo::new(100), BytesMut::new(), Vec::new());
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            while let Some(record) = codec.decode(&mut buffer)? {
                records.push(record.to_vec());
            }
        }
        Ok(records)
    }

    #[test]
    fn a_stream_split_anywhere_gives_the_same_records() {
        // Newlines and digits inside a record must not be mistaken for a header.
        let complete = b"5\nhello0\n12\n3\nabc\n{}7\n\n0";
        let whole = records(&[complete]).unwrap();
        assert_eq!(whole, [&b"hello"[..], b"", b"3\nabc\n{}7\n\n0"]);
        for first in 0..=complete.len() {
            for second in first..=complete.len() {
                let split = records(&[&complete[..first], &complete[first..second], &complete[second..]]).unwrap();
                assert_eq!(split, whole, "split at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = complete.chunks(1).collect();
        assert_eq!(records(&bytes).unwrap(), whole);
    }

    #[test]
    fn what_is_no_length_is_refused_at_once() {
        for text in ["x", "-1\n", "\n", "1 2\n", "<html>", "+5\nhello", "999999999999999999999"] {
            let error = records(&[text.as_bytes()]).unwrap_err();
            assert!(matches!(error, RecordIoError::Length { .. }), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_record_over_the_limit_is_refused_before_it_is_read() {
        let error = records(&[b"101\n"]).unwrap_err();
        assert_eq!(error.to_string(), "a record of 101 bytes exceeds the limit of 100");
        assert!(records(&[b"100\n"]).unwrap().is_empty());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (mut codec, mut buffer) = (RecordIo::new(100), BytesMut::new());
        for record in [&b"a"[..], b"", b"10\n"] {
            codec.encode(record, &mut buffer).unwrap();
        }
        assert_eq!(records(&[&buffer]).unwrap(), [b"a".to_vec(), b"".to_vec(), b"10\n".to_vec()]);
    }
}
