//! etcd's data are gone when the only control-plane host starts: nothing begins empty, and no task dies.
use std::collections::BTreeSet;
use std::time::Duration;

use crate::failures::identities;
use crate::support::*;

/// Time for the host to boot, and for the API to answer.
const BOOT: Duration = Duration::from_secs(120);

/// Time for systemd to have tried to start etcd.
const TRIED: Duration = Duration::from_secs(60);

/// How the data go: before the power is cut, and how they come back.
struct Loss {
    /// Run while etcd runs with its data in place; what it does stays over a reboot.
    before: &'static str,
    /// What is gone or away after the reboot.
    gone: &'static str,
    /// What `up` and etcd's journal say of the folder.
    said: &'static str,
    /// Brings the data back.
    back: &'static str,
}

const LOSSES: [Loss; 4] = [
    Loss {
        before: "true",
        gone: "mv /var/lib/etcd /srv/etcd.away",
        said: "/var/lib/etcd on cp1 does not exist",
        back: "mv /srv/etcd.away /var/lib/etcd",
    },
    Loss {
        before: "true",
        gone: "mv /var/lib/etcd /srv/etcd.away && mkdir -m 0700 /var/lib/etcd",
        said: "/var/lib/etcd on cp1 is empty",
        back: "rmdir /var/lib/etcd && mv /srv/etcd.away /var/lib/etcd",
    },
    // A symbolic link, whose target is gone.
    Loss {
        before: "systemctl stop etcd && mv /var/lib/etcd /srv/etcd && ln -s /srv/etcd /var/lib/etcd && systemctl start etcd",
        gone: "mv /srv/etcd /srv/etcd.away",
        said: "/var/lib/etcd on cp1 does not exist",
        back: "mv /srv/etcd.away /srv/etcd",
    },
    // A mount that nothing makes again: the mount point is empty.
    Loss {
        before: "systemctl stop etcd && rm /var/lib/etcd && mkdir -m 0700 /var/lib/etcd && \
                 mount --bind /srv/etcd /var/lib/etcd && systemctl start etcd",
        gone: "true",
        said: "/var/lib/etcd on cp1 is empty",
        back: "mount --bind /srv/etcd /var/lib/etcd",
    },
];

/// The cluster's tasks in Mesos.
fn living(lab: &Lab) -> BTreeSet<String> {
    lab.tasks().iter().map(|task| task["id"].as_str().expect("an id").to_owned()).collect()
}

fn up_is_refused(lab: &Lab, said: &str) {
    for command in ["plan", "up"] {
        let refused = lab.kmctl(&[command, "--yes"]);
        assert_eq!(refused.status, 1, "{command}: {}", refused.stderr);
        assert!(refused.stderr.contains(said) && refused.stderr.contains("hint: "), "{command}: {}", refused.stderr);
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn no_empty_cluster_begins_where_etcds_data_are_gone() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "kept");
    namespace.deployment("lives", 2, "50m", "32Mi");
    let before = identities(&lab.wait_for_pods("kept", 2, NODE_START));
    let tasks = living(&lab);
    for Loss { before: prepare, gone, said, back } in &LOSSES {
        lab.ssh("cp1", prepare).success();
        eventually(BOOT, "the API to answer", || lab.kubectl(&["get", "namespace", "kept"]).ok().then_some(()));
        let nothing = lab.kmctl(&["up", "--yes"]);
        assert!(nothing.ok(), "with the data in place: {}", nothing.stderr);
        // etcd goes on writing into the directory until the power is cut, wherever it is by then.
        lab.ssh("cp1", gone).success();
        drop(PowerCut::of(&lab, "cp1"));
        let tried = || {
            let journal = lab.ssh("cp1", "journalctl --no-pager -o cat -b -u etcd").stdout;
            journal.contains(said).then_some(())
        };
        eventually(TRIED, &format!("etcd's journal to say: {said}"), tried);
        assert!(!lab.ssh("cp1", "ls /var/lib/etcd/member").ok(), "{said}: etcd has begun");
        up_is_refused(&lab, said);
        assert!(!lab.ssh("cp1", "ls /var/lib/etcd/member").ok(), "{said}: etcd has begun");
        assert_eq!(living(&lab), tasks, "{said}");

        // etcd waits for its data, and needs nobody.
        lab.ssh("cp1", back).success();
        eventually(BOOT, "the API to answer", || lab.kubectl(&["get", "namespace", "kept"]).ok().then_some(()));
        lab.kmctl(&["up", "--yes"]).success();
        assert_eq!(identities(&lab.wait_for_pods("kept", 2, SETTLE)), before, "{said}");
        assert_eq!(living(&lab), tasks, "{said}");
    }

    // The directory cannot be written: etcd says so, and nothing else takes its place.
    let readonly = "systemctl stop etcd && umount /var/lib/etcd && mount --bind -o ro /srv/etcd /var/lib/etcd && \
                    mount -o remount,bind,ro /var/lib/etcd; systemctl start --no-block etcd";
    lab.ssh("cp1", readonly).success();
    let up = lab.kmctl(&["up", "--yes"]);
    assert!(!up.ok() && up.stderr.contains("/var/lib/etcd on cp1 cannot be written"), "{}", up.stderr);
    assert_eq!(living(&lab), tasks);
    let back = "systemctl stop etcd; umount /var/lib/etcd && rmdir /var/lib/etcd && mv /srv/etcd /var/lib/etcd && \
                systemctl reset-failed etcd; systemctl start etcd";
    lab.ssh("cp1", back).success();
    eventually(BOOT, "the API to answer", || lab.kubectl(&["get", "namespace", "kept"]).ok().then_some(()));
    lab.kmctl(&["up", "--yes"]).success();
    assert_eq!(identities(&lab.wait_for_pods("kept", 2, SETTLE)), before);
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn km_scheduler_touches_no_task_where_the_apis_store_does_not_know_its_framework() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "held");
    namespace.deployment("lives", 2, "50m", "32Mi");
    let before = identities(&lab.wait_for_pods("held", 2, NODE_START));
    let tasks = living(&lab);
    let record = lab.get(&["-n", "kube-system", "configmap", "kmctl-framework"]).expect("the record of the framework");
    // As after an older backup: neither the framework nor its pods.
    lab.ssh("cp1", "systemctl stop km-scheduler kube-scheduler").success();
    lab.kubectl(&["-n", "kube-system", "delete", "configmap", "kmctl-framework"]).success();
    lab.kubectl(&["-n", "held", "delete", "deployment", "lives", "--cascade=orphan"]).success();
    lab.kubectl(&["-n", "held", "delete", "pods", "--all", "--force", "--grace-period=0"]).success();
    lab.ssh("cp1", "systemctl start km-scheduler kube-scheduler").success();
    let healthz = || {
        let answer = lab.ssh("cp1", &format!("curl -s http://{}:10271/healthz", lab.address("cp1"))).stdout;
        answer.starts_with("held: the API has no record of framework").then_some(())
    };
    eventually(SETTLE, "km scheduler to hold", healthz);
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(living(&lab), tasks, "no task is touched");
    let status = lab.kmctl(&["status"]);
    assert!(status.stderr.contains("no record of framework") || status.stdout.contains("no record of framework"));
    let up = lab.kmctl(&["up", "--yes"]);
    assert!(up.status == 1 && up.stderr.contains("no record of framework"), "{}: {}", up.status, up.stderr);
    let events = lab.list(&["-n", "kube-system", "events"]);
    assert!(events.iter().any(|event| event["reason"] == "Held"), "no event");
    assert_eq!(living(&lab), tasks, "no task is touched");

    // The store is back.
    let data = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kmctl-framework", "namespace": "kube-system"},
        "data": record["data"],
    });
    lab.apply(&data.to_string());
    eventually(SETTLE, "km scheduler to connect", || {
        lab.framework()["connected"].as_bool().filter(|connected| *connected)
    });
    lab.kmctl(&["up", "--yes"]).success();
    drop((before, namespace));
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn lost_data_are_given_up_only_by_name() {
    let lab = Lab::ready();
    lab.ssh("cp1", "systemctl stop etcd && mv /var/lib/etcd /srv/etcd.lost").success();
    up_is_refused(&lab, "etcd data is lost: /var/lib/etcd on cp1 does not exist");
    let other = lab.kmctl(&["up", "--yes", "--begin-anew", "other"]);
    assert_eq!(other.status, 2, "{}", other.stderr);
    assert!(!lab.ssh("cp1", "ls /var/lib/etcd/member").ok(), "etcd has begun");
    lab.kmctl(&["up", "--yes", "--begin-anew", "lab"]).success();
    lab.kmctl(&["kubeconfig", "--out", &lab.kubeconfig]).success();
    lab.kubectl(&["get", "--raw", "/readyz"]).success();
    lab.ssh("cp1", "rm -r /srv/etcd.lost").success();
}
