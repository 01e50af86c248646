//! kubectl's commands that reach a node, and host ports.
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn logs_exec_and_port_forward_work() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "reach");
    let script = "echo said this; mkdir -p /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www";
    namespace.pod("web", "100m", "64Mi", "", script);
    namespace.wait("web", NODE_START);
    assert_eq!(lab.kubectl(&["-n", "reach", "logs", "web"]).success().trim(), "said this");
    let shown = lab.kubectl(&["-n", "reach", "exec", "web", "--", "cat", "/www/index.html"]).success();
    assert_eq!(shown.trim(), "served");

    let mut child = lab
        .kubectl_command(&["-n", "reach", "port-forward", "pod/web", ":8080"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut line = String::new();
    // Kept open: kubectl goes on printing, and would die of a closed pipe.
    let mut printed = BufReader::new(child.stdout.take().expect("piped"));
    printed.read_line(&mut line).expect("a line");
    let _forward = Background(child);
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port").to_owned();
    assert_eq!(lab.curl(&format!("http://127.0.0.1:{port}/index.html")).trim(), "served");
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_host_port_works_in_a_granted_range_and_names_the_ranges_outside_it() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "host-ports");
    let pod = |name: &str, port: u16| {
        lab.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: host-ports}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: main
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'mkdir -p /www; echo {name} > /www/index.html; exec httpd -f -p 8080 -h /www']
    ports: [{{containerPort: 8080, hostPort: {port}}}]
    resources: {{requests: {{cpu: 50m, memory: 32Mi}}}}
"
        ));
    };
    pod("inside", 31234);
    pod("outside", 8081);
    let inside = namespace.wait("inside", NODE_START);
    let address = inside["status"]["hostIP"].as_str().expect("an address").to_owned();
    let answer = eventually(SETTLE, "the host port to answer", || {
        let finished =
            run(std::process::Command::new("curl").args(["-sS", "-m", "3", &format!("http://{address}:31234/")]));
        finished.ok().then_some(finished.stdout)
    });
    assert_eq!(answer.trim(), "inside");
    let task = lab.task("inside.host-ports").expect("its task");
    assert!(task["resources"]["ports"].as_str().is_some_and(|p| p.contains("31234")), "{}", task["resources"]);

    let event = eventually_or(
        Duration::from_secs(30),
        "an event with the granted ranges",
        || lab.events("host-ports", "outside"),
        || Some(lab.events("host-ports", "outside")).filter(|t| t.contains("8081") && t.contains("31000-32000")),
    );
    assert!(event.contains("port"), "{event}");
}
