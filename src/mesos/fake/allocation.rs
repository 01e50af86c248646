//! Decides which framework is offered what.
use tokio::time::Instant;

use super::cluster::{Cluster, Framework, Offered};
use super::pool::Pool;
use crate::scheduler::{Event, Offers};
use crate::types::{AgentId, AllocationInfo, FrameworkCapabilityType, FrameworkId, Offer, OfferId};

impl Cluster {
    /// Offers everything that is free. One framework gets the whole rest of an agent; the framework that holds least is
    /// served first.
    pub(super) fn allocate(&mut self, now: Instant) {
        let agents: Vec<AgentId> = self.agents.keys().cloned().collect();
        for agent in agents {
            let free = match self.agents.get(&agent) {
                Some(agent) if agent.free.is_allocatable() => agent.free.clone(),
                _ => continue,
            };
            if let Some((framework, role)) = self.candidate(&agent, &free, now) {
                self.offer(agent, framework, role, free);
            }
        }
    }

    fn candidate(&mut self, agent: &AgentId, free: &Pool, now: Instant) -> Option<(FrameworkId, String)> {
        let region = self.agents.get(agent)?.spec.domain.clone();
        let mut candidates = Vec::new();
        for (id, framework) in &mut self.frameworks {
            if framework.stream.is_none() || !reaches(framework, region.is_some()) {
                continue;
            }
            framework.filters.retain(|filter| filter.until > now);
            for role in &framework.info.roles {
                let filtered = framework
                    .filters
                    .iter()
                    .any(|filter| filter.agent == *agent && filter.role == *role && filter.pool.contains(free));
                if !filtered && !framework.suppressed.contains(role) {
                    candidates.push((held(framework), id.clone(), role.clone()));
                }
            }
        }
        candidates.sort();
        candidates.into_iter().next().map(|(_, id, role)| (id, role))
    }

    fn offer(&mut self, agent_id: AgentId, framework_id: FrameworkId, role: String, pool: Pool) {
        let offer_id = OfferId::from(self.name("O"));
        let Some(agent) = self.agents.get_mut(&agent_id) else { return };
        let Some(framework) = self.frameworks.get(&framework_id) else { return };
        agent.free.subtract(&pool);
        let executors = framework.executors.keys().filter(|(on, _)| *on == agent_id);
        let offer = Offer {
            id: offer_id.clone(),
            framework_id: framework_id.clone(),
            agent_id: agent_id.clone(),
            hostname: agent.spec.hostname.clone(),
            domain: agent.spec.domain.clone(),
            resources: pool.resources(Some(&role)),
            attributes: agent.spec.attributes.clone(),
            executor_ids: executors.map(|(_, executor)| executor.clone()).collect(),
            allocation_info: Some(AllocationInfo { role: Some(role.clone()) }),
            ..Offer::default()
        };
        framework.send(Event::Offers { offers: Offers { offers: vec![offer.clone()] } });
        self.offers.insert(offer_id, Offered { framework: framework_id, agent: agent_id, role, pool, message: offer });
    }
}

/// Mesos hides agents whose fault domain is in another region. The fake's master has no domain, so every domain counts
/// as another region.
fn reaches(framework: &Framework, domain: bool) -> bool {
    !domain || framework.has(FrameworkCapabilityType::RegionAware)
}

/// Thousandths of CPUs that a framework holds.
fn held(framework: &Framework) -> i64 {
    let tasks = framework.tasks.values().filter(|task| !task.state.is_terminal()).map(|task| &task.pool);
    tasks.chain(framework.executors.values().map(|executor| &executor.pool)).map(|pool| pool.scalar("cpus")).sum()
}
