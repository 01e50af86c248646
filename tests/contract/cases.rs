//! What this project relies on, said as Mesos does it.
use mesos::fake::{FakeMaster, Options};
use mesos::operator::Operator;
use mesos::scheduler::{Call, Event, ReconcileTask, Scheduler};
use mesos::transport::{Authentication, HttpSettings, Secret};
use mesos::types::{ExecutorInfo, Filters, Resource, StatusReason, StatusSource, TaskState};
use mesos::{Masters, MesosError};

use crate::bed::{Bed, PATIENCE, ROLE_A, ROLE_B};

pub async fn several_tasks_of_one_accept_run_on_one_executor_and_end_one_by_one(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    let offer = framework.offer(ROLE_A).await;
    let executor = framework.executor(ROLE_A);
    let tasks = [0; 3].map(|_| framework.task(&offer, &executor));
    framework.launch(&[&offer], tasks.to_vec()).await;
    for task in &tasks {
        // States of different tasks come in any order; waiting for one may pass another's, so the master is asked.
        framework.call(Call::reconcile(vec![ReconcileTask { task_id: task.task_id.clone(), agent_id: None }])).await;
        framework.state(&task.task_id, TaskState::Running).await;
    }
    let operator = Operator::leading(&bed.masters()).await.unwrap();
    let id = framework.caller.framework_id().clone();
    let living = || async {
        let tasks = operator.tasks().await.unwrap().tasks;
        tasks.into_iter().filter(|task| task.framework_id == id && !task.state.is_terminal()).count()
    };
    assert_eq!(living().await, 3);
    let executors = operator.executors().await.unwrap().executors;
    let ours = executors.iter().filter(|known| known.executor_info.executor_id == executor.executor_id);
    assert_eq!(ours.count(), 1);

    framework.call(Call::kill(tasks[1].task_id.clone(), Some(offer.agent_id.clone()))).await;
    let status = framework.state(&tasks[1].task_id, TaskState::Killed).await;
    assert_eq!(status.source, Some(StatusSource::Executor));
    assert_eq!(status.executor_id.as_ref(), Some(&executor.executor_id));
    assert_eq!(living().await, 2);
    framework.teardown().await;
}

pub async fn an_executor_that_differs_from_the_running_one_is_an_error(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    let (_, first) = framework.running(ROLE_A).await;
    let executor = first.executor.unwrap();
    let mut other_command = executor.clone();
    other_command.command.as_mut().unwrap().value = Some("exec sleep 1".into());
    let mut other_resources = executor.clone();
    other_resources.resources[0] = Resource::scalar("cpus", 0.2).allocated_to(ROLE_A);
    for differing in [other_command, other_resources] {
        let offer = offer_on(&mut framework, &first.agent_id).await;
        let task = framework.task(&offer, &differing);
        framework.launch(&[&offer], vec![task.clone()]).await;
        let status = framework.state(&task.task_id, TaskState::Error).await;
        assert_eq!(status.reason, Some(StatusReason::TaskInvalid));
        assert_eq!(status.source, Some(StatusSource::Master));
        assert!(status.uuid.is_none(), "the master's own states want no acknowledgement");
    }
    // Labels and the grace period may differ.
    let offer = offer_on(&mut framework, &first.agent_id).await;
    let task = framework.task(&offer, &executor);
    framework.launch(&[&offer], vec![task.clone()]).await;
    framework.state(&task.task_id, TaskState::Running).await;
    framework.teardown().await;
}

/// An offer of one agent; offers of others go back.
async fn offer_on(framework: &mut crate::bed::Framework, agent: &mesos::types::AgentId) -> mesos::types::Offer {
    framework.call(Call::revive(vec![])).await;
    loop {
        let offer = framework.offer(ROLE_A).await;
        if offer.agent_id == *agent {
            return offer;
        }
        framework.call(Call::decline(vec![offer.id], Filters::refuse(30.0))).await;
    }
}

pub async fn a_second_role_uses_a_running_executor_only_as_it_was_launched(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A, ROLE_B]).await;
    let (_, first) = framework.running(ROLE_A).await;
    let executor = first.executor.unwrap();
    let implicit = ExecutorInfo {
        resources: executor
            .resources
            .iter()
            .cloned()
            .map(|mut resource| {
                resource.allocation_info = None;
                resource
            })
            .collect(),
        ..executor.clone()
    };
    // Without the role of its first offer, Mesos gives the executor's resources the role of this offer.
    let cases = [(implicit, TaskState::Error), (executor, TaskState::Running)];
    for (executor, expected) in cases {
        let offer = loop {
            let offer = framework.offer(ROLE_B).await;
            if offer.agent_id == first.agent_id {
                break offer;
            }
            framework.call(Call::decline(vec![offer.id], Filters::refuse(30.0))).await;
        };
        let task = framework.task(&offer, &executor);
        framework
            .call(Call::accept(
                vec![offer.id.clone()],
                vec![mesos::types::Operation::launch(vec![task.clone()])],
                Filters::refuse(0.0),
            ))
            .await;
        framework.state(&task.task_id, expected).await;
    }
    framework.teardown().await;
}

pub async fn offers_of_two_roles_are_not_used_together(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A, ROLE_B]).await;
    // Role B gets the rest of the agent, and role A what its task gives back.
    let (first, running) = framework.running(ROLE_A).await;
    let large = loop {
        let offer = framework.offer(ROLE_B).await;
        if offer.agent_id == first.agent_id {
            break offer;
        }
        framework.call(Call::decline(vec![offer.id], Filters::refuse(30.0))).await;
    };
    framework.call(Call::suppress(vec![ROLE_B.into()])).await;
    framework.call(Call::kill(running.task_id.clone(), None)).await;
    framework.state(&running.task_id, TaskState::Killed).await;
    framework.call(Call::revive(vec![ROLE_A.into()])).await;
    let small = framework
        .wait("offer to role A", |event| match event {
            Event::Offers { offers } => {
                offers.offers.into_iter().find(|offer| offer.agent_id == large.agent_id && offer.role() == Some(ROLE_A))
            }
            _ => None,
        })
        .await;
    let task = framework.task(&large, &framework.executor(ROLE_B));
    framework.launch(&[&large, &small], vec![task.clone()]).await;
    dropped(&mut framework, &task).await;
    framework.teardown().await;
}

/// Waits for the state of a task whose offers were not valid together.
async fn dropped(framework: &mut crate::bed::Framework, task: &mesos::types::TaskInfo) {
    let status = framework.state(&task.task_id, TaskState::Dropped).await;
    assert_eq!(status.reason, Some(StatusReason::InvalidOffers));
    assert_eq!(status.source, Some(StatusSource::Master));
    assert_eq!(status.agent_id.as_ref(), Some(&task.agent_id));
}

pub async fn an_accept_that_names_an_offer_that_is_gone_starts_nothing(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    let offer = framework.offer(ROLE_A).await;
    let task = framework.task(&offer, &framework.executor(ROLE_A));
    let gone = mesos::types::Offer { id: "no-such-offer".into(), ..offer.clone() };
    framework.launch(&[&offer, &gone], vec![task.clone()]).await;
    dropped(&mut framework, &task).await;
    // The offer that was there is used up all the same, and its resources are offered again.
    framework.call(Call::revive(vec![])).await;
    framework.offer(ROLE_A).await;
    framework.teardown().await;
}

pub async fn a_declined_offer_comes_back_only_after_revive(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    let offer = framework.offer(ROLE_A).await;
    let agent = offer.agent_id.clone();
    framework.call(Call::decline(vec![offer.id], Filters::refuse(3600.0))).await;
    let of_agent = |event: Event| match event {
        Event::Offers { offers } => offers.offers.into_iter().find(|offer| offer.agent_id == agent),
        _ => None,
    };
    assert!(quiet(bed, &mut framework, of_agent).await, "a filtered offer came back");
    framework.call(Call::revive(vec![])).await;
    framework.wait("offer after REVIVE", of_agent).await;
    framework.teardown().await;
}

/// Whether nothing that `pick` takes comes in the bed's quiet time.
async fn quiet<T>(bed: &Bed, framework: &mut crate::bed::Framework, pick: impl Fn(Event) -> Option<T>) -> bool {
    let seen = async {
        loop {
            if pick(framework.subscription.next().await.unwrap()).is_some() {
                return;
            }
        }
    };
    tokio::time::timeout(bed.quiet, seen).await.is_err()
}

pub async fn a_suppressed_role_gets_no_offers(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    framework.call(Call::suppress(vec![])).await;
    // Offers from before the call may still be under way, and go back at once.
    let early = quiet(bed, &mut framework, |_| None::<()>).await;
    assert!(early);
    let operator = Operator::leading(&bed.masters()).await.unwrap();
    let id = framework.caller.framework_id().clone();
    for offer in held(&operator, &id).await {
        framework.call(Call::decline(vec![offer], Filters::refuse(0.0))).await;
    }
    let offers = |event| matches!(event, Event::Offers { .. }).then_some(());
    assert!(quiet(bed, &mut framework, offers).await, "a suppressed role got an offer");
    framework.call(Call::revive(vec![ROLE_A.into()])).await;
    framework.wait("offer after REVIVE", offers).await;
    framework.teardown().await;
}

/// Offers that the master says a framework holds.
async fn held(operator: &Operator, id: &mesos::types::FrameworkId) -> Vec<mesos::types::OfferId> {
    let frameworks = operator.frameworks().await.unwrap().frameworks;
    let ours = frameworks.into_iter().filter(|framework| framework.framework_info.id.as_ref() == Some(id));
    ours.flat_map(|framework| framework.offers).map(|offer| offer.id).collect()
}

pub async fn reconciliation_tells_known_tasks_from_unknown_ones(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    let (offer, task) = framework.running(ROLE_A).await;
    let ask = |task_id: &str, agent_id: Option<&str>| {
        let agent_id = agent_id.map(Into::into);
        Call::reconcile(vec![ReconcileTask { task_id: task_id.into(), agent_id }])
    };
    let agent = offer.agent_id.as_str();
    let cases = [
        (task.task_id.as_str(), Some(agent), TaskState::Running),
        (task.task_id.as_str(), None, TaskState::Running),
        ("never-launched", Some(agent), TaskState::Gone),
        ("never-launched", None, TaskState::TaskUnknown),
        ("never-launched", Some("no-such-agent"), TaskState::TaskUnknown),
    ];
    for (task_id, agent_id, expected) in cases {
        framework.call(ask(task_id, agent_id)).await;
        let status = framework
            .wait("answer", |event| match event {
                Event::Update { update } => Some(update.status),
                _ => None,
            })
            .await;
        assert_eq!((status.task_id.as_str(), status.state), (task_id, expected), "on {agent_id:?}");
        assert_eq!(status.reason, Some(StatusReason::Reconciliation));
        assert_eq!(status.source, Some(StatusSource::Master));
        assert!(status.uuid.is_none());
    }
    framework.call(Call::reconcile(vec![])).await;
    let status = framework.state(&task.task_id, TaskState::Running).await;
    assert_eq!(status.reason, Some(StatusReason::Reconciliation));
    framework.teardown().await;
}

pub async fn a_state_that_was_not_acknowledged_comes_again_with_the_next_subscription(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    let offer = framework.offer(ROLE_A).await;
    let task = framework.task(&offer, &framework.executor(ROLE_A));
    framework.launch(&[&offer], vec![task.clone()]).await;
    let update = |event| match event {
        Event::Update { update } => Some(update.status),
        _ => None,
    };
    let first = framework.wait("a first state", update).await;
    assert_eq!(first.state, TaskState::Starting);
    framework.subscribe_again().await.unwrap();
    let again = framework.wait("the same state", update).await;
    assert_eq!((again.state, again.uuid.clone()), (first.state, first.uuid));
    // Only after the acknowledgement comes the next one.
    framework.call(Call::acknowledge(&again).unwrap()).await;
    framework.state(&task.task_id, TaskState::Running).await;
    framework.teardown().await;
}

pub async fn a_second_subscription_ends_the_first(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    let (_second, caller) = framework.scheduler.subscribe(&framework.info, &[]).await.unwrap();
    assert_eq!(caller.framework_id(), framework.caller.framework_id());
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Err(error) = framework.subscription.next().await {
                return error;
            }
        }
    });
    ended.await.expect("the first subscription to end");
    let error = framework.caller.call(Call::suppress(vec![])).await.unwrap_err();
    assert!(matches!(error, MesosError::Refused { status: 400, .. }), "{error}");
    caller.call(Call::Teardown).await.unwrap();
}

pub async fn a_framework_that_was_torn_down_never_comes_back(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    let operator = Operator::leading(&bed.masters()).await.unwrap();
    let id = framework.caller.framework_id().clone();
    operator.teardown(&id).await.unwrap();
    let error = operator.teardown(&id).await.unwrap_err();
    assert!(matches!(error, MesosError::Refused { status: 400, .. }), "{error}");
    let error = framework.subscribe_again().await.unwrap_err();
    assert!(matches!(error, MesosError::FrameworkRemoved), "{error}");
    let ended = operator.frameworks().await.unwrap().completed_frameworks;
    assert!(ended.iter().any(|framework| framework.framework_info.id.as_ref() == Some(&id)));
}

pub async fn killing_an_unknown_task_says_that_it_is_unknown(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    framework.call(Call::kill("never-launched".into(), None)).await;
    framework.state(&"never-launched".into(), TaskState::TaskUnknown).await;
    framework.teardown().await;
}

pub async fn shutting_an_executor_down_ends_its_tasks_and_says_so(bed: &Bed) {
    let mut framework = bed.framework(&[ROLE_A]).await;
    let (offer, task) = framework.running(ROLE_A).await;
    let executor = task.executor.unwrap().executor_id;
    framework.call(Call::shutdown(executor.clone(), offer.agent_id.clone())).await;
    framework.state(&task.task_id, TaskState::Killed).await;
    let failure = framework
        .wait("FAILURE", |event| match event {
            Event::Failure { failure } => Some(failure),
            _ => None,
        })
        .await;
    assert_eq!((failure.executor_id, failure.agent_id), (Some(executor), Some(offer.agent_id)));
    framework.teardown().await;
}

pub async fn a_wrong_secret_is_refused_by_name(bed: &Bed) {
    let Some(principal) = bed.authentication.principal() else { return };
    let wrong = Authentication::Basic { principal: principal.into(), secret: Secret::new("wr0ng") };
    for (authentication, expected) in [(wrong, principal), (Authentication::None, "no principal is configured")] {
        let scheduler = Scheduler::new(bed.masters_as(authentication));
        let error = scheduler.subscribe(&bed.framework_info(&[ROLE_A]), &[]).await.map(drop).unwrap_err();
        assert!(matches!(error, MesosError::Unauthenticated { .. }), "{error}");
        assert!(error.to_string().contains(expected) && !error.to_string().contains("wr0ng"), "{error}");
    }
}

pub async fn a_master_that_does_not_lead_names_the_one_that_does(bed: &Bed) {
    let leader = bed.masters[0].trim_start_matches("http://").to_owned();
    let options = Options { redirect_to: Some(leader.clone()), ..Options::default() };
    let standby = FakeMaster::start(options).await.unwrap();
    let settings = HttpSettings { authentication: bed.authentication.clone(), ..HttpSettings::default() };
    let masters = Masters::new(&["127.0.0.1:1".to_owned(), standby.address()], &settings).unwrap();
    let (_subscription, caller) =
        Scheduler::new(masters.clone()).subscribe(&bed.framework_info(&[ROLE_A]), &[]).await.unwrap();
    caller.call(Call::Teardown).await.unwrap();
    let operator = Operator::leading(&masters).await.unwrap();
    assert_eq!(operator.target(), format!("http://{leader}"));
}
