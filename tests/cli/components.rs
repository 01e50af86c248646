//! What answers on a control-plane host while its units run, in this process: etcd, kube-apiserver and the others as
//! far as `kmctl` and `km host` ask them, with the certificates that `km host` made. The API server keeps objects in
//! memory; it checks nothing and runs nothing. Real ones answer in `tests/api` and `tests/lab`.
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::machine::Machine;

/// How often a component looks whether its unit runs.
const LOOK: Duration = Duration::from_millis(20);

/// Objects of the API by their path.
#[derive(Clone, Default)]
pub struct Objects(Arc<Mutex<BTreeMap<String, Value>>>);

impl Objects {
    /// Puts an object there.
    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().insert(path.to_owned(), object);
    }

    /// Takes an object away.
    pub fn forget(&self, path: &str) {
        self.0.lock().unwrap().remove(path);
    }
}

/// The members of etcd, which all machines of a world know: as far as `km host` asks and changes them.
#[derive(Clone, Default)]
pub struct Etcd(Arc<Mutex<Membership>>);

#[derive(Default)]
struct Membership {
    /// Members as etcd lists them.
    members: Vec<Value>,
    /// Name, peer and the file `active` of each machine.
    machines: Vec<(String, String, PathBuf)>,
}

impl Etcd {
    /// Carries out a request, after every member that has started has told its name.
    fn ask(&self, what: &str, body: &Value) -> Value {
        let mut inner = self.0.lock().unwrap();
        let Membership { members, machines } = &mut *inner;
        for (name, peer, active) in machines.iter().filter(|(_, _, active)| active.exists()) {
            let first = members.is_empty();
            match members.iter_mut().find(|member| member["peerURLs"][0] == **peer) {
                Some(member) => member["name"] = json!(name),
                None if first => members.push(json!({"ID": "1", "name": name, "peerURLs": [peer]})),
                None => panic!("{active:?} exists, and its member was never added"),
            }
        }
        match what {
            "add" => {
                let last = members.iter().filter_map(|member| member["ID"].as_str()?.parse::<u64>().ok()).max();
                let id = last.unwrap_or_default() + 1;
                members.push(json!({"ID": id.to_string(), "peerURLs": body["peerURLs"], "isLearner": true}));
            }
            "promote" => {
                let member = members.iter_mut().find(|member| member["ID"] == body["ID"]).unwrap();
                member.as_object_mut().unwrap().remove("isLearner");
            }
            "remove" => members.retain(|member| member["ID"] != body["ID"]),
            _ => {}
        }
        let header = json!({"cluster_id": "14841639068965178418", "member_id": "1", "raft_term": "2"});
        json!({"header": header, "members": members})
    }
}

/// Lets the components of `machine` answer for as long as the runtime lives.
pub fn answer(machine: &Machine, objects: &Objects, members: &Etcd) {
    let pki = |name: &str| Some(machine.path("etc/kubernetes/pki").join(name));
    let local = Ipv4Addr::LOCALHOST;
    let health = Router::new().fallback(get(|| async { "ok" }));
    let api = Router::new().fallback(api).with_state(objects.clone());
    let etcd = etcd(machine, members);
    let components = [
        ("etcd", (local, 2379), pki("etcd/server"), etcd.clone()),
        ("etcd", (machine.address, 2379), pki("etcd/server"), etcd),
        ("kube-apiserver", (machine.address, 6443), pki("apiserver"), api),
        ("kube-controller-manager", (local, 10257), pki("controller-manager"), health.clone()),
        ("kube-scheduler", (local, 10259), pki("scheduler"), health.clone()),
        ("km-scheduler", (machine.address, 10271), None, health),
    ];
    for (unit, address, certificate, router) in components {
        tokio::spawn(serve(machine.unit(unit, "active"), address.into(), certificate, router));
    }
}

fn etcd(machine: &Machine, members: &Etcd) -> Router {
    let peer = format!("https://{}:2380", machine.address);
    members.0.lock().unwrap().machines.push((machine.name.clone(), peer, machine.unit("etcd", "active")));
    let members = members.clone();
    let change = async move |uri: Uri, body: axum::Json<Value>| {
        let what = uri.path().rsplit('/').next().unwrap_or_default();
        axum::Json(members.ask(what, &body))
    };
    Router::new().route("/v3/cluster/member/{what}", post(change)).fallback(get(|| async { "ok" }))
}

/// Serves while the file `active` exists.
async fn serve(active: PathBuf, address: SocketAddr, certificate: Option<PathBuf>, router: Router) {
    loop {
        let found = if active.exists() { TcpListener::bind(address).await.ok() } else { None };
        let Some(listener) = found else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let tls = certificate.as_deref().map(acceptor);
        let stopped = async {
            while active.exists() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => break,
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        tokio::spawn(connection(stream, tls.clone(), router.clone()));
                    }
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let service = TowerToHyperService::new(router);
    // A client that goes away, or does not like the certificate, sees for itself.
    match tls {
        None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                drop(builder.serve_connection(TokioIo::new(stream), service).await);
            }
        }
    }
}

/// With `PATH.crt` and `PATH.key`.
fn acceptor(path: &Path) -> TlsAcceptor {
    let file = |ending: &str| format!("{}.{ending}", path.display());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file("crt")).unwrap().collect();
    let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain.unwrap(), key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

async fn api(State(objects): State<Objects>, method: Method, uri: Uri, body: Bytes) -> Response {
    let path = uri.path();
    let mut objects = objects.0.lock().unwrap();
    match path {
        "/readyz" => return "ok".into_response(),
        // kube-controller-manager makes it.
        "/api/v1/namespaces/default/serviceaccounts/default" => {
            return axum::Json(json!({"kind": "ServiceAccount", "apiVersion": "v1"})).into_response();
        }
        "/version" => return axum::Json(json!({"major": "1", "minor": "37", "gitVersion": "v1.37.2"})).into_response(),
        "/apis/policy/v1/poddisruptionbudgets" => return list(&objects, "PodDisruptionBudget"),
        "/apis/networking.k8s.io/v1/networkpolicies" => return list(&objects, "NetworkPolicy"),
        "/api/v1/nodes" => return list(&objects, "Node"),
        "/api/v1/pods" => return list(&objects, "Pod"),
        _ => {}
    }
    match method {
        Method::GET => match objects.get(path) {
            Some(object) => axum::Json(object.clone()).into_response(),
            None => status(StatusCode::NOT_FOUND, &format!("{path} not found")),
        },
        Method::PATCH => {
            let Ok(patch) = serde_json::from_slice::<Value>(&body) else {
                return status(StatusCode::BAD_REQUEST, "the patch is no JSON");
            };
            let object = objects.entry(path.to_owned()).or_insert(json!({}));
            merge(object, patch);
            // km scheduler, which does not run here, would end all nodes, sweep the agents, and say so like this.
            if object["data"]["purge"] == "true" {
                object["data"]["purge"] = json!("done");
            }
            axum::Json(object.clone()).into_response()
        }
        _ => status(StatusCode::METHOD_NOT_ALLOWED, "the API server of the tests knows GET and PATCH"),
    }
}

fn list(objects: &BTreeMap<String, Value>, kind: &str) -> Response {
    let items: Vec<&Value> = objects.values().filter(|object| object["kind"] == kind).collect();
    axum::Json(json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {}, "items": items}))
        .into_response()
}

fn status(code: StatusCode, message: &str) -> Response {
    let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code.as_u16()});
    (code, axum::Json(status)).into_response()
}

/// A JSON merge patch (RFC 7396), which is also what a first server-side apply amounts to.
fn merge(object: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *object = patch;
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(&key);
        } else {
            merge(&mut object[&key], value);
        }
    }
}
