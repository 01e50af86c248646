//! No secret where others can read it.
use std::collections::BTreeMap;

use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn no_secret_shows_in_mesos_state_sandboxes_process_lists_or_journals() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "secrets");
    namespace.sleeper("awake", "100m", "64Mi");
    namespace.wait("awake", NODE_START);

    let places = places_to_search(&lab);
    let secrets = secrets(&lab);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    assert!(secrets.len() >= 6, "the test knows the secrets: {:?}", secrets.keys());
    for (place, text) in &places {
        for (name, secret) in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} is in {place}");
        }
        // A token's shape, so that one which is already deleted is found too.
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
        let token = words.find(|word| is_bootstrap_token(word) && !is_event(word, now));
        assert_eq!(token, None, "a bootstrap token is in {place}");
        assert!(!text.contains("PRIVATE KEY-----"), "a key is in {place}");
        // The beginning of every signed token, whoever's it is: {"alg":
        assert!(!text.contains("eyJhbGciOi"), "a service account's token is in {place}");
    }
    // The search works: what is not secret is found where it should be.
    assert!(places.iter().any(|(_, text)| text.contains("awake.secrets")), "the places were really read");
    let log = |place: &str| place.contains("sandbox file") && place.ends_with("/stderr");
    assert!(places.iter().any(|(place, text)| log(place) && text.contains("starting the node")), "sandboxes too");
}

/// Every secret of the cluster, each with a name for the message.
fn secrets(lab: &Lab) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (_, mesos_secret) = lab.credentials.split_once(':').expect("principal:secret");
    found.insert("Mesos' secret".to_owned(), mesos_secret.to_owned());
    for host in lab.hosts("control-plane") {
        let keys = lab.ssh(&host, "find /etc/kubernetes /etc/kmctl -name '*.key'").success();
        for path in keys.lines() {
            // One line out of the middle of a key names it as well as the whole.
            let line = lab.ssh(&host, &format!("sed -n 2p {path}")).success().trim().to_owned();
            assert!(line.len() > 30, "{path} has no second line");
            found.insert(format!("{host}:{path}"), line);
        }
        let encryption = lab.ssh(&host, "grep -o 'secret: .*' /etc/kubernetes/encryption.yaml").success();
        found.insert(format!("{host}'s encryption key"), encryption.trim_start_matches("secret: ").trim().to_owned());
    }
    for secret in lab.list(&["-n", "kube-system", "secrets"]) {
        if secret["type"] == "bootstrap.kubernetes.io/token" {
            let encoded = secret["data"]["token-secret"].as_str().unwrap_or_default().to_owned();
            found.insert(format!("token {}", name_of(&secret)), encoded);
        }
    }
    found
}

fn places_to_search(lab: &Lab) -> Vec<(String, String)> {
    let mut places = vec![("the master's /state".to_owned(), lab.curl(&format!("{}/state", lab.mesos)))];
    places.push(("GET_STATE".to_owned(), lab.mesos_call("GET_STATE")));
    for host in lab.hosts("agent") {
        let address = lab.address(&host);
        let state = lab.curl(&format!("http://{address}:5051/state"));
        for directory in sandboxes(&state) {
            let mut folders = vec![directory];
            while let Some(folder) = folders.pop() {
                let listing = lab.curl(&format!("http://{address}:5051/files/browse?path={folder}"));
                let entries: serde_json::Value = serde_json::from_str(&listing).unwrap_or_default();
                for entry in entries.as_array().into_iter().flatten() {
                    let path = entry["path"].as_str().unwrap_or_default().to_owned();
                    if entry["mode"].as_str().is_some_and(|m| m.starts_with('d')) {
                        folders.push(path);
                    } else if entry["size"].as_u64().is_some_and(|s| s < 4 << 20) {
                        let text = lab.curl(&format!("http://{address}:5051/files/download?path={path}"));
                        places.push((format!("{host}'s sandbox file {path}"), text));
                    }
                }
            }
        }
        places.push((format!("{host}'s agent state"), state));
    }
    for role in ["agent", "control-plane", "mesos-master"] {
        for host in lab.hosts(role) {
            places.push((format!("ps on {host}"), lab.ssh(&host, "ps axeww -o args").success()));
            places.push((format!("{host}'s journal"), lab.ssh(&host, "journalctl --no-pager -o cat").success()));
        }
    }
    places
}

/// Sandbox folders named anywhere in an agent's state.
fn sandboxes(state: &str) -> Vec<String> {
    let state: serde_json::Value = serde_json::from_str(state).expect("the agent's state is JSON");
    let mut found = Vec::new();
    for list in ["frameworks", "completed_frameworks"] {
        for framework in state[list].as_array().into_iter().flatten() {
            for executors in ["executors", "completed_executors"] {
                for executor in framework[executors].as_array().into_iter().flatten() {
                    found.extend(executor["directory"].as_str().map(str::to_owned));
                }
            }
        }
    }
    found
}

/// Six characters, a dot, sixteen characters, all lower-case letters and digits.
fn is_bootstrap_token(word: &str) -> bool {
    let lower = |part: &str| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    word.split_once('.').is_some_and(|(id, secret)| {
        id.len() == 6 && secret.len() == 16 && lower(id) && lower(secret) && secret.chars().any(|c| c.is_ascii_digit())
    })
}

/// Events are named after what they are about, a node or a pod, and the moment in hexadecimal nanoseconds (client-go,
/// `tools/record`). Of 10^10 secrets not one reads as a moment of the last week.
fn is_event(word: &str, now: std::time::Duration) -> bool {
    const WEEK: u128 = 7 * 24 * 3600 * 1_000_000_000;
    let moment = word.split_once('.').and_then(|(_, moment)| u64::from_str_radix(moment, 16).ok());
    moment.is_some_and(|moment| (now.as_nanos().saturating_sub(WEEK)..=now.as_nanos()).contains(&u128::from(moment)))
}

#[test]
fn the_name_of_an_event_is_taken_for_no_token() {
    // 2026-11-30, in seconds.
    let now = std::time::Duration::from_secs(1_796_040_000);
    for event in ["agent2.18ecc00000000000", "caller.18ecc12345678901"] {
        assert!(is_bootstrap_token(event), "it has the shape");
        assert!(is_event(event, now), "{event}");
    }
    assert!(!is_event("agent2.18ecc0000000000z", now));
    assert!(!is_event("abc123.0123456789abcdef", now), "1972");
    assert!(!is_event("abc123.28ecce908b348c0c", now), "2063");
}

#[test]
fn the_search_for_tokens_finds_one() {
    assert!(is_bootstrap_token("abc123.0123456789abcdef"));
    assert!(!is_bootstrap_token("kubelet.config"));
}
