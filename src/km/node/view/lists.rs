//! Lists and watches of rewritten objects, as in the Kubernetes API: a list has a version, a watch continues from it,
//! bookmarks advance it while nothing changes, and a version that is too old is answered with 410.
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::store::{Expired, Store};
use super::translate::{Here, Resource, Translations};
use super::upstream::{ListOf, Told, Upstream};

/// How long the first list may take before a client is told to retry.
const FIRST_LIST: Duration = Duration::from_secs(25);
/// The API server's own interval.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// Limit of a watch whose client sets none.
const WATCH_LIMIT: Duration = Duration::from_secs(1800);

/// The options of a client's watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// The version to continue from. None (or zero): start with all existing objects.
    pub version: Option<u64>,
    /// Send bookmarks while nothing changes.
    pub bookmarks: bool,
    /// Start with all existing objects and mark their end.
    pub initial: bool,
    /// The watch's duration.
    pub limit: Option<Duration>,
}

/// All lists that clients have requested. Each is followed from its first use on.
pub struct Lists {
    address: IpAddr,
    ports: watch::Receiver<Translations>,
    upstream: Arc<dyn Upstream>,
    lists: Mutex<BTreeMap<ListOf, Arc<Followed>>>,
}

/// A list that is followed.
pub struct Followed {
    of: ListOf,
    store: Mutex<Store>,
    /// A copy of the store's version, which notifies watches of changes.
    version: watch::Sender<u64>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Lists {
    /// For the node at `address`, with the destinations of its ports in `ports`.
    pub fn new(address: IpAddr, ports: watch::Receiver<Translations>, upstream: Arc<dyn Upstream>) -> Self {
        Lists { address, ports, upstream, lists: Mutex::default() }
    }

    /// The complete list; none if the API server does not answer in time.
    pub async fn get(&self, resource: Resource, of: ListOf) -> Option<Arc<Followed>> {
        let followed = self.followed(resource, of);
        let mut version = followed.version.subscribe();
        let end = Instant::now() + FIRST_LIST;
        while !followed.store().synced() {
            timeout_at(end, version.changed()).await.ok()?.ok()?;
        }
        Some(followed)
    }

    fn followed(&self, resource: Resource, of: ListOf) -> Arc<Followed> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let here = Here { address: self.address, ports: self.ports.borrow().clone() };
            let store = Store::new(resource, here);
            let version = watch::Sender::new(store.version());
            let followed =
                Arc::new(Followed { of: of.clone(), store: Mutex::new(store), version, task: Mutex::default() });
            let (told, inbox) = mpsc::unbounded_channel();
            let upstream = self.upstream.clone();
            let (list, ports) = (of.clone(), self.ports.clone());
            // A weak reference, or the list would keep itself alive.
            let weak = Arc::downgrade(&followed);
            let task = tokio::spawn(async move {
                tokio::join!(upstream.follow(list, told), follow(weak, inbox, ports));
            });
            *followed.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(AbortOnDropHandle::new(task));
            followed
        };
        lists.entry(of.clone()).or_insert_with(make).clone()
    }
}

async fn follow(
    followed: std::sync::Weak<Followed>,
    mut inbox: mpsc::UnboundedReceiver<Told>,
    mut ports: watch::Receiver<Translations>,
) {
    // Changes between the list's creation and now.
    ports.mark_changed();
    loop {
        // Ports first: the port of a new endpoint must already be known.
        let told = tokio::select! {
            biased;
            Ok(()) = ports.changed() => None,
            told = inbox.recv() => match told {
                Some(told) => Some(told),
                None => return,
            },
        };
        let Some(followed) = followed.upgrade() else { return };
        let mut store = followed.store();
        match told {
            None => store.translate(ports.borrow_and_update().clone()),
            Some(Told::Begin) => store.begin_list(),
            Some(Told::Object(object)) => store.apply(object),
            Some(Told::End) => store.end_list(),
            Some(Told::Gone(object)) => store.delete(&object),
        }
        let version = store.version();
        drop(store);
        followed.version.send_replace(version);
    }
}

impl Followed {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole list as JSON. A version that this store never issued is answered with 410, since the client knows it
    /// from another store.
    pub fn list(&self, at_least: Option<u64>) -> Result<Vec<u8>, Expired> {
        let (version, items) = {
            let store = self.store();
            if let Some(asked) = at_least.filter(|asked| *asked > store.version()) {
                return Err(Expired { asked, oldest: store.version() });
            }
            (store.version(), store.list())
        };
        let head = format!(
            r#"{{"kind":"{}List","apiVersion":"{}","metadata":{{"resourceVersion":"{version}"}},"items":["#,
            self.of.kind,
            self.of.api_version()
        );
        let mut text = head.into_bytes();
        text.extend(items.join(&b","[..]));
        text.extend(b"]}");
        Ok(text)
    }

    /// Starts a watch; [`Watching::next`] returns its lines.
    pub fn watch(self: Arc<Self>, options: &WatchOptions) -> Result<Watching, Expired> {
        let now = Instant::now();
        let mut watching = Watching {
            // Subscribed before the list is read, so that no change in between is missed.
            changed: self.version.subscribe(),
            list: self.clone(),
            version: 0,
            pending: VecDeque::new(),
            bookmarks: options.bookmarks,
            end: now + options.limit.unwrap_or(WATCH_LIMIT),
            bookmark: now + BOOKMARKS,
            over: false,
        };
        let store = self.store();
        match options.version.filter(|_| !options.initial) {
            Some(version) => {
                store.since(version)?;
                watching.version = version;
            }
            None => {
                watching.version = store.version();
                watching.pending.extend(store.list().iter().map(|object| line("ADDED", object)));
                if options.initial {
                    watching.mark(json!({ "k8s.io/initial-events-end": "true" }));
                }
            }
        }
        drop(store);
        Ok(watching)
    }
}

/// A running watch.
pub struct Watching {
    list: Arc<Followed>,
    version: u64,
    pending: VecDeque<Bytes>,
    bookmarks: bool,
    end: Instant,
    bookmark: Instant,
    changed: watch::Receiver<u64>,
    over: bool,
}

impl Watching {
    /// The next line; none when the watch is over.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.pending.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            self.changed.borrow_and_update();
            let since = self.list.store().since(self.version);
            match since {
                Err(expired) => {
                    let status = status(410, "Expired", &expired.to_string());
                    self.pending.push_back(line("ERROR", &Bytes::from(status.to_string())));
                    self.over = true;
                }
                Ok(changes) if !changes.is_empty() => {
                    for change in changes {
                        self.version = change.version;
                        self.pending.push_back(line(change.kind.name(), &change.object));
                    }
                }
                Ok(_) => tokio::select! {
                    changed = self.changed.changed() => self.over = changed.is_err(),
                    () = sleep_until(self.end.min(self.bookmark)) => self.time(),
                },
            }
        }
    }

    fn time(&mut self) {
        let now = Instant::now();
        self.over = now >= self.end;
        self.bookmark = now + BOOKMARKS;
        // Also at the end, so that the next watch continues from the newest version.
        if self.bookmarks {
            self.mark(Value::Null);
        }
    }

    fn mark(&mut self, annotations: Value) {
        let mut metadata = json!({ "resourceVersion": self.version.to_string() });
        if !annotations.is_null() {
            metadata["annotations"] = annotations;
        }
        let object = json!({
            "kind": self.list.of.kind, "apiVersion": self.list.of.api_version(), "metadata": metadata,
        });
        self.pending.push_back(line("BOOKMARK", &Bytes::from(object.to_string())));
    }
}

fn line(kind: &str, object: &Bytes) -> Bytes {
    let mut line = format!(r#"{{"type":"{kind}","object":"#).into_bytes();
    line.extend(object);
    line.extend(b"}\n");
    line.into()
}

/// A Status object, as the API returns it for a failure.
pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

#[cfg(test)]
#[path = "lists_tests.rs"]
pub(super) mod tests;
