//! A subscription's stream of events: decodes records and detects silence.
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;

use super::error::MesosError;
use super::recordio::{RECORD_LIMIT, RecordIo};
use super::transport::Body;

/// Events of one subscription.
pub(super) struct Events {
    records: FramedRead<StreamReader<Body, Bytes>, RecordIo>,
    target: String,
    silence: Option<Duration>,
    heard: Instant,
}

impl Events {
    /// Reads events from the body of a reply by `target`.
    pub(super) fn new(body: Body, target: &str) -> Self {
        let records = FramedRead::new(StreamReader::new(body), RecordIo::new(RECORD_LIMIT));
        Self { records, target: target.to_owned(), silence: None, heard: Instant::now() }
    }

    /// From now on, silence of this length is an error.
    pub(super) fn expect_sign_of_life_within(&mut self, silence: Duration) {
        self.silence = Some(silence);
    }

    /// The next event. Cancel-safe: neither an event nor the time of the last one is lost if the future is dropped.
    pub(super) async fn next<E: DeserializeOwned>(&mut self) -> Result<E, MesosError> {
        let record = match self.silence {
            None => self.records.next().await,
            Some(silence) => match tokio::time::timeout_at(self.heard + silence, self.records.next()).await {
                Ok(record) => record,
                Err(_) => return Err(MesosError::Silent { target: self.target.clone(), silence }),
            },
        };
        self.heard = Instant::now();
        match record {
            None => Err(MesosError::Closed { target: self.target.clone() }),
            Some(Err(source)) => Err(MesosError::Stream { target: self.target.clone(), source }),
            Some(Ok(bytes)) => parse(&bytes).map_err(|source| MesosError::Malformed {
                what: "an event",
                target: self.target.clone(),
                source,
            }),
        }
    }
}

/// Parses an event. An event without a type, which is how a newer kind may arrive, becomes one of an unknown type.
fn parse<E: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<E> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice(bytes).or_else(|error| match serde_json::from_slice::<Kind>(bytes) {
        Ok(Kind { r#type: None }) => serde_json::from_str(r#"{"type":"UNKNOWN"}"#),
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::scheduler::Event;

    fn events(chunks: Vec<io::Result<Bytes>>) -> Events {
        Events::new(futures::stream::iter(chunks).boxed(), "http://m")
    }

    #[tokio::test]
    async fn a_stream_that_ends_says_so() {
        let mut events = events(vec![Ok(Bytes::from_static(b"20\n{\"type\":\"HEARTBEAT\"}"))]);
        assert_eq!(events.next::<Event>().await.unwrap(), Event::Heartbeat);
        let error = events.next::<Event>().await.unwrap_err();
        assert_eq!(error.to_string(), "http://m closed the event stream");
    }

    #[tokio::test]
    async fn an_event_without_a_type_is_unknown_and_a_broken_one_an_error() {
        let mut events = events(vec![Ok(Bytes::from_static(b"2\n{}9\n{\"type\":}"))]);
        assert_eq!(events.next::<Event>().await.unwrap(), Event::Unknown);
        assert!(matches!(events.next::<Event>().await, Err(MesosError::Malformed { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_measured_from_the_last_event_also_across_dropped_waits() {
        let body = futures::stream::once(async { Ok(Bytes::from_static(b"20\n{\"type\":\"HEARTBEAT\"}")) })
            .chain(futures::stream::pending());
        let mut events = Events::new(body.boxed(), "http://m");
        events.expect_sign_of_life_within(Duration::from_secs(30));
        events.next::<Event>().await.unwrap();
        let start = Instant::now();
        for _ in 0..2 {
            let waited = tokio::time::timeout(Duration::from_secs(20), events.next::<Event>()).await;
            if let Ok(result) = waited {
                assert!(matches!(result, Err(MesosError::Silent { .. })));
            }
        }
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }
}
