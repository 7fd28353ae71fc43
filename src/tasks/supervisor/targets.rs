//! The targets in use: builds them and publishes their health.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Supervisor, Targets, Workplace};
use crate::config::Config;
use crate::healthomics::{Target, TargetError};
use crate::state::WatchState;

impl Supervisor {
    pub(super) async fn build_targets(&self, config: &Config) -> Result<Targets, TargetError> {
        // A target that nothing uses keeps its found rate.
        let unchanged = self.targets.iter().filter(|(name, (standing, _))| config.targets.get(*name) == Some(standing));
        let mut targets: Targets = unchanged.map(|(name, target)| (Arc::clone(name), target.clone())).collect();
        for name in config.watch_list.targets() {
            let Some(wished) = config.targets.get(name) else { unreachable!("the configuration names its targets") };
            if !targets.contains_key(name) {
                let Workplace { clock, instruments, .. } = &*self.workplace;
                let target = Arc::new(Target::new(wished, &*self.connect, *clock, instruments).await?);
                targets.insert(Arc::clone(name), (wished.clone(), target));
            }
        }
        Ok(targets)
    }

    /// Publishes the health of the targets that have live jobs or stores. Without requests, no success would bring one back up.
    pub(super) fn tell_targets(&self) {
        let Workplace { board, .. } = &*self.workplace;
        let (watches, stores) = (board.watches(), board.stores());
        let live = watches.into_iter().filter(|watch| watch.state == WatchState::Live);
        let live = live.map(|watch| Arc::clone(&watch.id.target));
        let used = live.chain(stores.iter().map(|store| Arc::clone(&store.id.target)));
        let health = |name: Arc<str>| self.targets.get(&name).map(|(_, target)| (name, target.health()));
        board.set_target_health(used.filter_map(health).collect::<BTreeMap<_, _>>());
    }
}
