//! Measurements of several kinds at a time: each operation has its own quota, so no kind delays another.

use refwatch::core::failure::Operation;
use refwatch::core::kind::JobKind;

use crate::measurements::{Delays, live, of, run_of, throttled};
use crate::run::{End, Report};
use crate::scenario::Scenario;

/// The delays of 1,000 live read set imports in one sequence store and of 10 live reference imports, with listings.
pub(crate) fn delays_of_two_kinds(runs: u64) -> [(JobKind, Delays); 2] {
    let reports: Vec<Report> = (0..runs)
        .map(|seed| {
            let mut scenario = live(seed, 1_010, 1);
            for (place, job) in scenario.jobs.iter_mut().enumerate() {
                // One in 101 jobs stays a reference import. A fifth of each kind ends: the jobs of the first places.
                if place % 101 > 0 {
                    job.key.kind = JobKind::ReadSetImport;
                }
            }
            run_of(&scenario)
        })
        .collect();
    [JobKind::ReadSetImport, JobKind::ReferenceImport].map(|kind| (kind, delays_of(kind, &reports)))
}

/// The delays of read set imports and of reference imports, 50 live jobs each, while the role may not call `denied` for 50 read set exports
/// in the store of the imports.
pub(crate) fn delays_beside_denied_exports(denied: Option<Operation>) -> [Delays; 2] {
    let reports: Vec<Report> = (0..20)
        .map(|seed| {
            let mut scenario = Scenario { denied: denied.into_iter().collect(), ..live(seed, 150, 1) };
            for (place, job) in scenario.jobs.iter_mut().enumerate() {
                job.key.kind = [JobKind::ReferenceImport, JobKind::ReadSetImport, JobKind::ReadSetExport][place % 3];
            }
            run_of(&scenario)
        })
        .collect();
    [JobKind::ReadSetImport, JobKind::ReferenceImport].map(|kind| delays_of(kind, &reports))
}

/// The delays of one kind, and the throttled fraction of its requests.
fn delays_of(kind: JobKind, reports: &[Report]) -> Delays {
    let ends: Vec<End> =
        reports.iter().flat_map(|report| &report.ends).filter(|end| end.kind == kind).copied().collect();
    let own = [Operation::Get(kind), Operation::List(kind)];
    let calls = reports.iter().flat_map(|report| &report.calls).filter(|call| own.contains(&call.operation));
    of(ends, throttled(calls))
}
