//! Downloads one file from a server into the cache, in as many attempts as needed.
//!
//! A partial file is continued by a Range request to the original URL: the target of its redirect is often valid for
//! minutes only. The sha256 of the whole file decides, whichever server sent its parts.
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use super::error::FetchError;
use super::mirror::Mirror;
use kmctl_core::bundle::hex_digest;
use kmctl_core::progress::{Progress, Step};

/// After this many consecutive attempts without data, the download fails.
const ATTEMPTS: u32 = 5;

/// Pause after the first attempt. Each further pause is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// A server that sends nothing for this long has lost the connection.
const SILENCE: Duration = Duration::from_secs(30);

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Larger bodies are files. Smaller ones may be a text that says why there is none.
const TEXT: u64 = 4096;

/// A checksum file is never larger: SHA256SUMS of a release has a few kilobytes.
const CHECKSUMS: usize = 1 << 20;

/// Something to download.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Upstream's URL, which also names the file in the cache.
    pub(super) url: String,
    /// Where it is requested, if neither from upstream's URL nor from the mirror's.
    pub(super) at: Option<String>,
    /// Its name in progress reports.
    pub(super) label: String,
    /// The expected sha256.
    pub(super) sha256: String,
    /// The source of the expected sha256.
    pub(super) origin: String,
    /// Size in bytes, if known.
    pub(super) size: Option<u64>,
    /// Bearer token for a registry.
    pub(super) token: Option<String>,
    /// Component and version, for messages.
    pub(super) of: (String, String),
}

/// Downloads files into a directory.
pub(super) struct Transfers {
    client: reqwest::Client,
    mirror: Option<Mirror>,
    cache: PathBuf,
    progress: Progress,
}

/// Why an attempt did not return the whole file.
enum Cut {
    /// Retry. Holds the reason and how many bytes were received.
    Again(String, u64),
    /// Do not retry.
    Final(FetchError),
}

impl Transfers {
    /// Downloads into `cache`, from `mirror` or else from upstream, through the environment's proxies.
    pub(super) fn new(mirror: Option<Mirror>, cache: PathBuf, progress: Progress) -> Result<Transfers, FetchError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("kmctl/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(FetchError::Client)?;
        Ok(Transfers { client, mirror, cache, progress })
    }

    /// Where `url` of upstream is requested.
    pub(super) fn address(&self, url: &str) -> String {
        self.mirror.as_ref().map_or_else(|| url.to_owned(), |mirror| mirror.of_file(url))
    }

    /// The text at `url`. `None` if it does not exist.
    pub(super) async fn text(&self, url: &str) -> Result<Option<String>, FetchError> {
        let address = self.address(url);
        let mut failed = 0;
        loop {
            let why = match self.try_text(&address).await {
                Ok(text) => return Ok(text),
                Err(Cut::Final(error)) => return Err(error),
                Err(Cut::Again(why, _)) => why,
            };
            failed += 1;
            if failed == ATTEMPTS {
                return Err(FetchError::Broken { url: address, why });
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(failed - 1)).await;
        }
    }

    async fn try_text(&self, address: &str) -> Result<Option<String>, Cut> {
        let response = self.client.get(address).send().await.map_err(|error| Cut::Again(told(&error), 0))?;
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            StatusCode::OK => {}
            status => return Err(refused(address, status)),
        }
        let is_page = is_page(&response);
        let mut text = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            text.extend_from_slice(&chunk.map_err(|error| Cut::Again(told(&error), 0))?);
            if text.len() > CHECKSUMS {
                let what = format!("more than {} KiB", CHECKSUMS >> 10);
                return Err(Cut::Final(FetchError::NotTheFile { url: address.to_owned(), what }));
            }
        }
        if is_page || is_markup(&text) {
            let what = "a web page".to_owned();
            return Err(Cut::Final(FetchError::NotTheFile { url: address.to_owned(), what }));
        }
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Whether `url` of upstream exists.
    pub(super) async fn exists(&self, url: &str) -> Result<bool, FetchError> {
        let address = self.address(url);
        let asked = self.client.get(&address).header(RANGE, "bytes=0-0").send().await;
        let response = asked.map_err(|error| FetchError::Broken { url: address, why: told(&error) })?;
        Ok(!matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE))
    }

    /// Returns the file in the cache, with the expected sha256.
    pub(super) async fn file(&self, wanted: &Wanted) -> Result<PathBuf, FetchError> {
        let file = self.cache.join(wanted.url.trim_start_matches("https://"));
        let step = self.progress.step(&wanted.label, "Downloading");
        if matches!(digest(&file).await, Ok((sha256, _)) if sha256 == wanted.sha256) {
            step.unchanged("in the cache");
            return Ok(file);
        }
        let fetched = self.fetch(wanted, &file, &step).await;
        match fetched {
            Ok(bytes) => step.done(&format!("Downloaded {:.1} MiB", bytes as f64 / f64::from(1 << 20))),
            Err(_) => step.failed("failed"),
        }
        fetched.map(|_| file)
    }

    async fn fetch(&self, wanted: &Wanted, file: &Path, step: &Step) -> Result<u64, FetchError> {
        let folder = file.parent().unwrap_or(&self.cache);
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| FetchError::File { what, path, source }
        };
        tokio::fs::create_dir_all(folder).await.map_err(failed("create directory", folder))?;
        let partial = folder.join(format!("{}.partial", file.file_name().unwrap_or_default().display()));
        let address = wanted.at.clone().unwrap_or_else(|| self.address(&wanted.url));
        let began_with = tokio::fs::metadata(&partial).await.map_or(0, |there| there.len());
        let mut may_begin_again = began_with > 0;
        loop {
            self.whole(wanted, &address, &partial, step).await?;
            let (sha256, bytes) = digest(&partial).await.map_err(failed("read", &partial))?;
            if sha256 == wanted.sha256 {
                tokio::fs::rename(&partial, file).await.map_err(failed("rename", &partial))?;
                return Ok(bytes);
            }
            // If the length is right, the file was changed, whatever it looks like.
            let what = if wanted.size == Some(bytes) { None } else { beginning(&partial, bytes).await };
            tokio::fs::remove_file(&partial).await.map_err(failed("remove", &partial))?;
            if std::mem::take(&mut may_begin_again) {
                // The partial file may be of another file that once had this URL.
                step.at("the partial download does not match; starting again");
                continue;
            }
            let url = address;
            return Err(match (what, wanted.size) {
                (Some(what), _) => FetchError::NotTheFile { url, what },
                (None, Some(expected)) if bytes < expected => FetchError::Short { url, got: bytes, expected },
                _ => FetchError::Mismatch {
                    url,
                    got: sha256,
                    expected: wanted.sha256.clone(),
                    origin: wanted.origin.clone(),
                },
            });
        }
    }

    /// Retries until the server reports that there is no more.
    async fn whole(&self, wanted: &Wanted, address: &str, partial: &Path, step: &Step) -> Result<(), FetchError> {
        let mut failed = 0;
        loop {
            let why = match self.attempt(wanted, address, partial, step).await {
                Ok(()) => return Ok(()),
                Err(Cut::Final(error)) => return Err(error),
                Err(Cut::Again(why, bytes)) => {
                    failed = if bytes > 0 { 1 } else { failed + 1 };
                    why
                }
            };
            if failed == ATTEMPTS {
                return Err(FetchError::Broken { url: address.to_owned(), why });
            }
            step.at(&format!("{why}; continuing"));
            tokio::time::sleep(PAUSE * 2_u32.pow(failed - 1)).await;
        }
    }

    async fn attempt(&self, wanted: &Wanted, address: &str, partial: &Path, step: &Step) -> Result<(), Cut> {
        let failed = |source| Cut::Final(FetchError::File { what: "write", path: partial.to_owned(), source });
        let mut file = File::options().create(true).append(true).open(partial).await.map_err(failed)?;
        let mut have = file.metadata().await.map_err(failed)?.len();
        // A compressed response would have other bytes.
        let mut request = self.client.get(address).header(ACCEPT_ENCODING, "identity");
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        if let Some(token) = &wanted.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.send().await.map_err(|error| Cut::Again(told(&error), 0))?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response) == Some(have) => {}
            StatusCode::OK => {
                if is_page(&response) {
                    let what = "a web page".to_owned();
                    return Err(Cut::Final(FetchError::NotTheFile { url: address.to_owned(), what }));
                }
                // The server sends all of it, even if only a part was requested.
                file.set_len(0).await.map_err(failed)?;
                have = 0;
            }
            // There is nothing after the present bytes, or the part is of another file. Its sha256 decides.
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(()),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let (component, version) = wanted.of.clone();
                let (url, status) = (address.to_owned(), response.status().as_u16());
                return Err(Cut::Final(FetchError::Missing { url, status, component, version }));
            }
            StatusCode::PARTIAL_CONTENT => {
                file.set_len(0).await.map_err(failed)?;
                return Err(Cut::Again("the server sent another range than requested".to_owned(), 0));
            }
            status => return Err(refused(address, status)),
        }
        let total = response.content_length().map(|length| have + length);
        let mut brought = 0;
        let mut body = response.bytes_stream();
        let ended = loop {
            match body.next().await {
                None => break Ok(()),
                Some(Err(error)) => break Err(Cut::Again(told(&error), brought)),
                Some(Ok(chunk)) => {
                    file.write_all(&chunk).await.map_err(failed)?;
                    brought += chunk.len() as u64;
                    if let Some(total) = total.or(wanted.size) {
                        step.bytes(have + brought, total);
                    }
                }
            }
        };
        file.flush().await.map_err(failed)?;
        ended
    }
}

async fn digest(file: &Path) -> std::io::Result<(String, u64)> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || hex_digest(&mut std::fs::File::open(file)?))
        .await
        .map_err(std::io::Error::other)?
}

/// Where the part that was sent starts.
fn begins_at(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn is_page(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}

fn is_markup(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).trim_start().to_lowercase();
    start.starts_with("<!doctype") || start.starts_with("<html")
}

/// What a file is that is not the expected one, if that is known: a page, nothing, or a short text.
async fn beginning(file: &Path, bytes: u64) -> Option<String> {
    if bytes == 0 {
        return Some("nothing".to_owned());
    }
    let mut start = Vec::new();
    let opened = File::open(file).await.ok()?;
    tokio::io::AsyncReadExt::read_to_end(&mut tokio::io::AsyncReadExt::take(opened, TEXT), &mut start).await.ok()?;
    if is_markup(&start) {
        return Some("a web page".to_owned());
    }
    let text = String::from_utf8(start).ok().filter(|_| bytes < TEXT)?;
    if text.chars().any(|letter| letter.is_control() && !letter.is_whitespace()) {
        return None;
    }
    let line: String = text.lines().next().unwrap_or_default().chars().take(80).collect();
    Some(format!("a text of {bytes} bytes: `{line}`"))
}

fn refused(address: &str, status: StatusCode) -> Cut {
    // Storage behind a redirect answers with a status above 599 when its signature has expired.
    let passes = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    if status.as_u16() >= 500 || passes {
        return Cut::Again(format!("HTTP {}", status.as_u16()), 0);
    }
    Cut::Final(FetchError::Refused { url: address.to_owned(), status: status.as_u16() })
}

/// The innermost reason: the outer ones repeat the URL, or are uninformative.
pub(super) fn told(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    if error.is_timeout() { "no response from the server".to_owned() } else { last.to_string() }
}
