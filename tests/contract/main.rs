//! The same cases on the in-process Mesos and on a real one, so that the fake that the other tests stand on cannot
//! drift from what it stands for.
//!
//! The real one is named by `KMCTL_MESOS_MASTER` (`host:port` or URL) and `KMCTL_MESOS_CREDENTIALS`
//! (`principal:secret`, may be empty); its agents must reach this machine, which serves them the executor:
//! `cargo nextest run --test contract --run-ignored all`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a panic is the failure")]
#![forbid(unsafe_code)]
mod bed;
mod cases;

use bed::Bed;

macro_rules! cases {
    ($($case:ident)*) => {
        mod fake {
            $(#[tokio::test]
            async fn $case() {
                super::cases::$case(&super::Bed::fake().await).await;
            })*
        }

        /// One after the other: they share the agents.
        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs KMCTL_MESOS_MASTER"]
        async fn real_mesos() {
            let bed = Bed::real().await;
            $(
                println!("case {}", stringify!($case));
                cases::$case(&bed).await;
            )*
        }
    };
}

cases! {
    several_tasks_of_one_accept_run_on_one_executor_and_end_one_by_one
    an_executor_that_differs_from_the_running_one_is_an_error
    a_second_role_uses_a_running_executor_only_as_it_was_launched
    offers_of_two_roles_are_not_used_together
    an_accept_that_names_an_offer_that_is_gone_starts_nothing
    a_declined_offer_comes_back_only_after_revive
    a_suppressed_role_gets_no_offers
    reconciliation_tells_known_tasks_from_unknown_ones
    a_state_that_was_not_acknowledged_comes_again_with_the_next_subscription
    a_second_subscription_ends_the_first
    a_framework_that_was_torn_down_never_comes_back
    killing_an_unknown_task_says_that_it_is_unknown
    shutting_an_executor_down_ends_its_tasks_and_says_so
    a_wrong_secret_is_refused_by_name
    a_master_that_does_not_lead_names_the_one_that_does
}
