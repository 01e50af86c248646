//! The programs themselves judge what is rendered for them: every flag is in the program's own `--help`, and every
//! configuration is read without a key that the program does not know. For each minor, hierarchy and mode.
use std::path::{Path, PathBuf};
use std::process::Command;

use kmctl_core::k8s::MINORS;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use tempfile::TempDir;

use crate::server::{Server, programs};

/// Which program reads which rendered file as its arguments.
const UNITS: [(&str, &str); 4] = [
    ("etcd", "cp1/etc/systemd/system/etcd.service"),
    ("kube-apiserver", "cp1/etc/systemd/system/kube-apiserver.service"),
    ("kube-controller-manager", "cp1/etc/systemd/system/kube-controller-manager.service"),
    ("kube-scheduler", "cp1/etc/systemd/system/kube-scheduler.service"),
];
const NODE: [(&str, &str); 3] =
    [("kubelet", "node/kubelet.argv"), ("kube-proxy", "node/kube-proxy.argv"), ("containerd", "node/containerd.argv")];

/// The folder with the programs of a minor.
fn programs_of(minor: usize) -> PathBuf {
    if minor == 0 {
        return programs();
    }
    let older = std::env::var_os("KMCTL_TEST_BIN_OLDER").map(PathBuf::from);
    older.expect("KMCTL_TEST_BIN_OLDER names a folder with the programs of the older minor")
}

/// What `kmctl render` writes.
fn render(version: &str, mode: &str, cgroup: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for part in ["programs/bin", "programs/cni"] {
        std::fs::create_dir_all(path(part)).unwrap();
    }
    for file in kmctl_core::bundle::required() {
        std::fs::write(path("programs").join(file), file).unwrap();
    }
    let cluster = format!(
        "apiVersion: kmctl.io/v1alpha1\nkind: Cluster\nmetadata: {{ name: demo }}\nspec:\n  mesos: {{ master: '10.0.0.5:5050' }}\n  \
         controlPlane: {{ endpoint: '10.0.0.11:6443', hosts: [{{ address: 10.0.0.11, name: cp1 }}] }}\n  \
         network: {{ mode: {mode} }}\n  bundle: bundle\n"
    );
    std::fs::write(path("cluster.yaml"), cluster).unwrap();
    for arguments in [
        &["bundle", "create", "--kubernetes", version, "--out", "bundle", "programs"][..],
        &["render", "--cgroup", cgroup, "--out", "rendered"],
    ] {
        let run =
            Command::new(env!("CARGO_BIN_EXE_kmctl")).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    }
    folder
}

/// What a program prints, on both of its outputs.
fn said(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("GOTRACEBACK", "none").output();
    let output = output.unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The flags of a unit's ExecStart, or of a file with an argument per line.
fn flags(text: &str) -> Vec<String> {
    let words = text.split_whitespace().filter(|word| word.starts_with("--"));
    let mut flags: Vec<String> = words.map(|word| word.split('=').next().unwrap().to_owned()).collect();
    flags.dedup();
    flags
}

fn knows(help: &str, flag: &str) -> bool {
    help.split(|letter: char| letter.is_whitespace() || letter == ',' || letter == '=').any(|word| word == flag)
}

/// Each says in its own words that it does not know a key.
fn unknown_key(program: &str, said: &str) -> bool {
    let words: &[&str] = match program {
        "containerd" => &["Ignoring unknown key"],
        // A kubelet goes on without the key.
        "kubelet" => &["lenient decoding", "strict decoding error", "unknown field"],
        _ => &["strict decoding error", "unknown field"],
    };
    words.iter().any(|words| said.contains(words))
}

fn reads(programs: &Path, program: &str, file: &Path, scratch: &Path) -> String {
    let (file, root) = (file.display().to_string(), scratch.join("kubelet").display().to_string());
    let (root, certificates) = (format!("--root-dir={root}"), format!("--cert-dir={root}/pki"));
    let path = programs.join(program);
    match program {
        "containerd" => said(&path, &["--config", &file, "config", "dump"]),
        // Without credentials and runtime both end right after they have read it.
        "kubelet" => said(&path, &["--config", &file, &root, &certificates]),
        _ => said(&path, &["--config", &file]),
    }
}

#[test]
#[ignore = "needs KMCTL_TEST_BIN and KMCTL_TEST_BIN_OLDER"]
fn programs_know_the_flags_and_keys_that_are_rendered_for_them() {
    for (minor, row) in MINORS.iter().enumerate() {
        let programs = programs_of(minor);
        let helps: Vec<(&str, String)> =
            UNITS.iter().chain(&NODE).map(|(name, _)| (*name, said(&programs.join(name), &["--help"]))).collect();
        for mode in ["hostPorts", "cni"] {
            for cgroup in ["v1", "v2"] {
                let folder = render(&row.tested.to_string(), mode, cgroup);
                let rendered = |file: &str| folder.path().join("rendered").join(file);
                for (program, file) in UNITS.iter().chain(&NODE) {
                    let text = std::fs::read_to_string(rendered(file)).unwrap();
                    let (_, help) = helps.iter().find(|(name, _)| name == program).unwrap();
                    let flags = flags(&text);
                    assert!(flags.len() >= 2, "{file} names flags: {text}");
                    for flag in flags {
                        assert!(knows(help, &flag), "{program} of {} does not know {flag}", row.tested);
                    }
                    assert!(!knows(help, "--no-such-flag"));
                }
                for (program, file, planted) in [
                    ("kube-scheduler", "cp1/etc/kubernetes/scheduler.yaml", "plantedKey: 1\n"),
                    ("kubelet", "node/kubelet.yaml", "plantedKey: 1\n"),
                    ("containerd", "node/containerd.toml", "[plugins.\"io.containerd.cri.v1.images\"]\nplanted = 1\n"),
                ] {
                    let said = reads(&programs, program, &rendered(file), folder.path());
                    assert!(!unknown_key(program, &said), "{program} of {} on {file}: {said}", row.tested);
                    // So that silence means something.
                    let other = rendered("planted");
                    let text = std::fs::read_to_string(rendered(file)).unwrap();
                    std::fs::write(&other, format!("{}\n{planted}", text.trim_end())).unwrap();
                    let said = reads(&programs, program, &other, folder.path());
                    assert!(unknown_key(program, &said), "{program} of {} takes any key: {said}", row.tested);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn the_api_server_takes_a_candidates_node_to_the_letter() {
    let server = Server::start().await;
    let nodes = ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        plural: "nodes".to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(server.client(), &nodes);
    for mode in ["hostPorts", "cni"] {
        let folder = render(&MINORS[0].tested.to_string(), mode, "v2");
        let text = std::fs::read_to_string(folder.path().join("rendered/node/candidate.yaml")).unwrap();
        let mut node: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let name = mode.to_lowercase();
        node["metadata"]["name"] = serde_json::json!(name);
        let strict = PatchParams::apply("test").force().validation_strict();
        api.patch(&name, &strict, &Patch::Apply(&node)).await.unwrap();
        let planted = serde_json::json!({"apiVersion": "v1", "kind": "Node", "spec": {"planted": 1}});
        assert!(api.patch(&name, &strict, &Patch::Apply(&planted)).await.is_err(), "unknown fields are refused");
    }
}
