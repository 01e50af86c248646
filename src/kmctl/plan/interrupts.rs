//! What restarting a component interrupts.

/// How many of `members` etcd members must answer.
pub(crate) fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// What does not answer while `unit` restarts, if `hosts` control-plane hosts run it. `None` if the restart is not
/// noticeable.
pub(super) fn interrupts(unit: &str, hosts: usize) -> Option<String> {
    let alone = hosts < 2;
    let left = hosts.saturating_sub(1);
    let text = match unit {
        "etcd.service" if alone => "API unavailable until etcd is ready; pods keep running".to_owned(),
        "etcd.service" if left < quorum(hosts) => {
            format!("API unavailable until etcd is ready ({left} of {hosts} members are no quorum); pods keep running")
        }
        "etcd.service" => format!("requests to this host's API server fail; {left} of {hosts} members keep the quorum"),
        "kube-apiserver.service" if alone => "API unavailable until it is ready; pods keep running".to_owned(),
        "kube-apiserver.service" => format!("requests to this host's API server fail; {left} of {hosts} are available"),
        "kube-controller-manager.service" if alone => "controllers pause for a few seconds".to_owned(),
        "kube-controller-manager.service" => "controllers pause until another host leads".to_owned(),
        "kube-scheduler.service" | "km-scheduler.service" if alone => {
            "new pods are delayed for a few seconds".to_owned()
        }
        "kube-scheduler.service" | "km-scheduler.service" => "new pods are delayed until another host leads".to_owned(),
        "km-endpoints.service" => "changes of Services are delayed for a few seconds".to_owned(),
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_more_than_half() {
        assert_eq!([1, 2, 3, 4, 5].map(quorum), [1, 2, 2, 3, 3]);
    }

    #[test]
    fn two_members_keep_no_quorum_when_one_restarts_and_three_do() {
        let of = |hosts| interrupts("etcd.service", hosts).unwrap();
        assert!(of(1).starts_with("API unavailable"), "{}", of(1));
        assert!(of(2).contains("1 of 2 members are no quorum"), "{}", of(2));
        assert!(of(3).contains("2 of 3 members keep the quorum"), "{}", of(3));
        assert_eq!(interrupts("other.service", 1), None);
    }
}
