//! Where the cases run, and what they say again and again.
use std::time::Duration;

use mesos::fake::{AgentSpec, FakeMaster, Options};
use mesos::scheduler::{Call, Caller, Event, Scheduler, Subscription};
use mesos::transport::{Authentication, HttpSettings, Secret};
use mesos::types::{
    CommandInfo, ExecutorInfo, ExecutorType, Filters, FrameworkCapabilityType, FrameworkInfo, Offer, Operation,
    Resource, TaskId, TaskInfo, TaskState, TaskStatus,
};
use mesos::{Masters, MesosError};

/// Longest wait for anything: a real executor is fetched and started in it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const ROLE_A: &str = "contract-a";
pub const ROLE_B: &str = "contract-b";

/// A Mesos.
pub struct Bed {
    pub masters: Vec<String>,
    pub authentication: Authentication,
    command: CommandInfo,
    /// Time in which nothing happens, for cases that show that.
    pub quiet: Duration,
    _fake: Option<FakeMaster>,
}

impl Bed {
    pub async fn fake() -> Self {
        let authentication = Authentication::Basic { principal: "contract".into(), secret: Secret::new("s3cret") };
        let options = Options { authentication: authentication.clone(), ..Options::default() };
        let fake = FakeMaster::start(options).await.unwrap();
        fake.add_agent(AgentSpec::new("agent1", 2.0, 2048.0));
        fake.add_agent(AgentSpec::new("agent2", 2.0, 2048.0));
        let command = CommandInfo { value: Some("true".into()), ..CommandInfo::default() };
        let quiet = Duration::from_millis(200);
        Self { masters: vec![fake.address()], authentication, command, quiet, _fake: Some(fake) }
    }

    pub async fn real() -> Self {
        let master = std::env::var("KMCTL_MESOS_MASTER").expect("KMCTL_MESOS_MASTER");
        let credentials = std::env::var("KMCTL_MESOS_CREDENTIALS").unwrap_or_default();
        let authentication = match credentials.split_once(':') {
            Some((principal, secret)) => {
                Authentication::Basic { principal: principal.into(), secret: Secret::new(secret) }
            }
            None => Authentication::None,
        };
        let (uri, sha256) = serve_km(&master).await;
        let command = CommandInfo::verified("km", &uri, &sha256, &["mesos", "idle-executor"]);
        // Three rounds of a real master's offers.
        let quiet = Duration::from_secs(3);
        Self { masters: vec![master], authentication, command, quiet, _fake: None }
    }

    pub fn masters(&self) -> Masters {
        self.masters_as(self.authentication.clone())
    }

    pub fn masters_as(&self, authentication: Authentication) -> Masters {
        Masters::new(&self.masters, &HttpSettings { authentication, ..HttpSettings::default() }).unwrap()
    }

    pub fn framework_info(&self, roles: &[&str]) -> FrameworkInfo {
        FrameworkInfo {
            user: "root".into(),
            name: format!("contract-{}", uuid::Uuid::new_v4()),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            // What a failed case leaves is gone soon.
            failover_timeout: Some(5.0),
            checkpoint: Some(true),
            principal: self.authentication.principal().map(str::to_owned),
            capabilities: [
                FrameworkCapabilityType::MultiRole,
                FrameworkCapabilityType::PartitionAware,
                FrameworkCapabilityType::ReservationRefinement,
                FrameworkCapabilityType::RegionAware,
                FrameworkCapabilityType::TaskKillingState,
            ]
            .map(Into::into)
            .to_vec(),
            ..FrameworkInfo::default()
        }
    }

    pub async fn framework(&self, roles: &[&str]) -> Framework {
        let mut info = self.framework_info(roles);
        let scheduler = Scheduler::new(self.masters());
        let (subscription, caller) = scheduler.subscribe(&info, &[]).await.unwrap();
        info.id = Some(caller.framework_id().clone());
        Framework { info, scheduler, subscription, caller, command: self.command.clone(), offers: Vec::new() }
    }
}

/// Serves this package's km to the agents; returns its URI and sha256.
async fn serve_km(master: &str) -> (String, String) {
    use sha2::{Digest, Sha256};
    let km = std::fs::read(env!("CARGO_BIN_EXE_km")).unwrap();
    let sha256 = hex::encode(Sha256::digest(&km));
    // The address from which this machine reaches the master is one at which agents reach this machine.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let authority = master.split_once("://").map_or(master, |(_, rest)| rest);
    probe.connect(authority.trim_end_matches('/')).unwrap();
    let listener = tokio::net::TcpListener::bind((probe.local_addr().unwrap().ip(), 0)).await.unwrap();
    let uri = format!("http://{}/{sha256}", listener.local_addr().unwrap());
    let km = bytes::Bytes::from(km);
    let router = axum::Router::new().fallback(move || {
        let km = km.clone();
        async move { km }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (uri, sha256)
}

/// A subscribed framework.
pub struct Framework {
    pub info: FrameworkInfo,
    pub scheduler: Scheduler,
    pub subscription: Subscription,
    pub caller: Caller,
    command: CommandInfo,
    /// Came, and not used yet.
    offers: Vec<Offer>,
}

impl Framework {
    pub async fn call(&self, call: Call) {
        self.caller.call(call).await.unwrap();
    }

    /// The first event that `pick` takes. Offers that come meanwhile are kept for `offer`.
    pub async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let event = self.subscription.next().await.unwrap();
                if let Some(found) = pick(event.clone()) {
                    return found;
                }
                self.keep(event);
            }
        });
        found.await.unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
    }

    fn keep(&mut self, event: Event) {
        match event {
            Event::Offers { offers } => self.offers.extend(offers.offers),
            Event::Rescind { rescind } => self.offers.retain(|offer| offer.id != rescind.offer_id),
            _ => {}
        }
    }

    /// An offer to a role with enough for a few tasks; others are declined for a while.
    pub async fn offer(&mut self, role: &str) -> Offer {
        loop {
            if self.offers.is_empty() {
                self.offers = self
                    .wait("offer", |event| match event {
                        Event::Offers { offers } => Some(offers.offers),
                        _ => None,
                    })
                    .await;
            }
            for offer in std::mem::take(&mut self.offers) {
                let cpus: f64 = offer.resources.iter().filter(|r| r.name == "cpus").map(Resource::amount).sum();
                if offer.role() != Some(role) || cpus < 0.5 {
                    self.call(Call::decline(vec![offer.id], Filters::refuse(30.0))).await;
                } else {
                    self.offers.push(offer);
                }
            }
            if !self.offers.is_empty() {
                return self.offers.remove(0);
            }
        }
    }

    /// An executor for tasks of a role.
    pub fn executor(&self, role: &str) -> ExecutorInfo {
        ExecutorInfo {
            kind: Some(ExecutorType::Custom),
            executor_id: uuid::Uuid::new_v4().to_string().into(),
            command: Some(self.command.clone()),
            resources: vec![
                Resource::scalar("cpus", 0.1).allocated_to(role),
                Resource::scalar("mem", 64.0).allocated_to(role),
            ],
            ..ExecutorInfo::default()
        }
    }

    pub fn task(&self, offer: &Offer, executor: &ExecutorInfo) -> TaskInfo {
        let role = offer.role().unwrap();
        TaskInfo {
            name: "contract".into(),
            task_id: uuid::Uuid::new_v4().to_string().into(),
            agent_id: offer.agent_id.clone(),
            resources: vec![
                Resource::scalar("cpus", 0.05).allocated_to(role),
                Resource::scalar("mem", 32.0).allocated_to(role),
            ],
            executor: Some(executor.clone()),
            ..TaskInfo::default()
        }
    }

    /// Launches tasks; what is left of the offers is not wanted again for this role.
    pub async fn launch(&self, offers: &[&Offer], tasks: Vec<TaskInfo>) {
        let ids = offers.iter().map(|offer| offer.id.clone()).collect();
        self.call(Call::accept(ids, vec![Operation::launch(tasks)], Filters::refuse(30.0))).await;
    }

    /// Waits for a task's state, acknowledging all states on the way.
    pub async fn state(&mut self, task: &TaskId, state: TaskState) -> TaskStatus {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let event = self.subscription.next().await.unwrap();
                self.keep(event.clone());
                if let Event::Update { update } = event {
                    if let Some(call) = Call::acknowledge(&update.status) {
                        self.call(call).await;
                    }
                    if update.status.task_id == *task && update.status.state == state {
                        return update.status;
                    }
                    let other = update.status.task_id == *task && update.status.state.is_terminal();
                    assert!(!other, "waited for {state}, got {:?}", update.status);
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("{task} is not {state} within {PATIENCE:?}"))
    }

    /// A running task on a new executor.
    pub async fn running(&mut self, role: &str) -> (Offer, TaskInfo) {
        let offer = self.offer(role).await;
        let task = self.task(&offer, &self.executor(role));
        self.launch(&[&offer], vec![task.clone()]).await;
        self.state(&task.task_id, TaskState::Running).await;
        (offer, task)
    }

    pub async fn teardown(self) {
        self.call(Call::Teardown).await;
    }

    pub async fn subscribe_again(&mut self) -> Result<(), MesosError> {
        self.offers.clear();
        (self.subscription, self.caller) = self.scheduler.subscribe(&self.info, &[]).await?;
        Ok(())
    }
}
