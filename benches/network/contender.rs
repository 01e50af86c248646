//! The two that write Endpoints and EndpointSlices, each as a process of its own with default settings, but that the
//! stock one is not held to its 20 requests per second and needs no Lease.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kmctl_core::cluster::{KubernetesSpec, NetworkSpec, NodesSpec};
use kmctl_core::protocol::scheduler::{ArtifactServer, ExtenderServer, MesosConnection, SchedulerConfiguration};

use crate::figures;
use crate::server::{Process, Server, programs, start};

/// One that writes.
pub struct Contender {
    name: &'static str,
    program: fn() -> PathBuf,
    arguments: fn(&Path) -> Vec<String>,
}

/// `km endpoints`.
pub static OURS: Contender = Contender {
    name: "km-endpoints",
    program: || env!("CARGO_BIN_EXE_km").into(),
    arguments: |folder| {
        let settings = folder.join("scheduler.yaml");
        std::fs::write(&settings, serde_json::to_string(&configuration(folder)).unwrap()).unwrap();
        vec!["endpoints".to_owned(), format!("--config={}", settings.display())]
    },
};

/// The stock endpoint controllers.
pub static THEIRS: Contender = Contender {
    name: "kube-controller-manager",
    program: || programs().join("kube-controller-manager"),
    arguments: |_| {
        let arguments = "--controllers=endpoints-controller,endpointslice-controller --leader-elect=false --secure-port=0 \
                         --kube-api-qps=2000 --kube-api-burst=2000";
        arguments.split_whitespace().map(str::to_owned).collect()
    },
};

impl Contender {
    /// Starts it; it ends with what is returned. Its files are in the folder.
    pub fn start(&self, server: &Server, folder: &Path) -> Running {
        let kubeconfig = folder.join(format!("{}.kubeconfig", self.name));
        std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
        let mut arguments = (self.arguments)(folder);
        arguments.push(format!("--kubeconfig={}", kubeconfig.display()));
        let log = folder.join(format!("{}.log", self.name));
        Running { process: start(&(self.program)(), &arguments, &log), log }
    }
}

/// A process under way.
pub struct Running {
    process: Process,
    log: PathBuf,
}

impl Running {
    /// Fails with its log if it has ended: everything would be waited for in vain.
    pub fn must_run(&mut self) {
        if let Some(status) = self.process.0.try_wait().unwrap() {
            panic!("it ended with {status}:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.process.0.id())).unwrap()
    }

    /// Processor seconds so far, in user and kernel mode.
    pub fn processor(&self) -> f64 {
        let text = self.read("stat");
        // The name in brackets may have blanks; fields 14 and 15, in hundredths of a second (proc(5), USER_HZ).
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    /// The most memory that it ever had, in MiB.
    pub fn most_memory(&self) -> f64 {
        figures::most_memory(&self.process.0.id().to_string())
    }
}

/// Settings of which `km endpoints` reads the cluster's name and network mode.
fn configuration(folder: &Path) -> SchedulerConfiguration {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let none = PathBuf::new;
    SchedulerConfiguration {
        // One km endpoints per cluster and host: another measurement on this machine is another cluster.
        cluster: format!("bench-{}", folder.file_name().unwrap().display()),
        mesos: MesosConnection {
            masters: Vec::new(),
            user: String::new(),
            roles: Vec::new(),
            principal: String::new(),
            secret_file: None,
            ca_file: None,
            framework_name: String::new(),
        },
        kubeconfig: none(),
        api_servers: Vec::new(),
        ca_file: none(),
        state_dir: none(),
        extender: ExtenderServer {
            listen: nowhere,
            peers: None,
            cert_file: none(),
            key_file: none(),
            client_ca_file: none(),
        },
        artifacts: ArtifactServer { listen: nowhere, advertise: String::new(), manifest: none() },
        kubernetes: KubernetesSpec::default(),
        nodes: NodesSpec::default(),
        network: NetworkSpec::default(),
    }
}
