//! The targets in use: which there are, and what of them the board is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Supervisor, Targets, Workplace};
use crate::config::Config;
use crate::healthomics::{Target, TargetError};
use crate::state::WatchState;

impl Supervisor {
    pub(super) async fn build_targets(&self, config: &Config) -> Result<Targets, TargetError> {
        // One that nothing uses at present keeps its place under the quota all the same.
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

    /// Has readiness depend on those targets alone through which something is asked: where nothing is, no answer would end a refusal.
    pub(super) fn tell_targets(&self) {
        let Workplace { board, .. } = &*self.workplace;
        let live = board.watches().into_iter().filter(|watch| watch.state == WatchState::Live);
        let live = live.map(|watch| Arc::clone(&watch.id.target));
        let used: BTreeSet<_> = live.chain(board.stores().iter().map(|store| Arc::clone(&store.id.target))).collect();
        let refused = |name: &Arc<str>| self.targets.get(name).filter(|_| used.contains(name))?.1.refused();
        for name in board.daemon().refused_targets.keys().chain(&used) {
            board.target_stands(name, refused(name));
        }
    }
}
