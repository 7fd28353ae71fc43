//! Generates the items of simulated jobs: sources and read sets with the members that a client requested.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::lifecycle::Outcome;

/// An item as requested, and the id of what it creates.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SimulatedItem {
    /// The members that do not change.
    pub(super) requested: Map<String, Value>,
    /// The id of the new reference or read set.
    pub(super) result_id: String,
}

/// The largest number of items of a job. The API allows 100, and 20 for an activation.
const ITEMS_MAX: u8 = 6;

/// Common genome assemblies: name, organism, file.
const REFERENCES: [(&str, &str, &str); 12] = [
    ("GRCh38", "Homo sapiens", "GRCh38.primary_assembly.genome.fa.gz"),
    ("T2T-CHM13v2.0", "Homo sapiens", "chm13v2.0.fa.gz"),
    ("GRCm39", "Mus musculus", "GRCm39.primary_assembly.genome.fa.gz"),
    ("GRCh37", "Homo sapiens", "human_g1k_v37.fasta.gz"),
    ("mRatBN7.2", "Rattus norvegicus", "mRatBN7.2.dna.toplevel.fa.gz"),
    ("GRCz11", "Danio rerio", "GRCz11.dna.primary_assembly.fa.gz"),
    ("BDGP6.46", "Drosophila melanogaster", "BDGP6.46.dna.toplevel.fa.gz"),
    ("WBcel235", "Caenorhabditis elegans", "WBcel235.dna.toplevel.fa.gz"),
    ("TAIR10", "Arabidopsis thaliana", "TAIR10.dna.toplevel.fa.gz"),
    ("R64-1-1", "Saccharomyces cerevisiae", "R64-1-1.dna.toplevel.fa.gz"),
    ("ARS-UCD1.3", "Bos taurus", "ARS-UCD1.3.dna.toplevel.fa.gz"),
    ("Sscrofa11.1", "Sus scrofa", "Sscrofa11.1.dna.toplevel.fa.gz"),
];

/// Public reference samples of the Genome in a Bottle and 1000 Genomes projects.
const SAMPLES: [&str; 12] = [
    "HG001", "HG002", "HG003", "HG004", "HG005", "HG006", "HG007", "HG00514", "HG00733", "NA19240", "NA12891",
    "NA12892",
];

/// Generates unique ids of ten digits.
pub(super) struct Ids {
    rng: Rng,
    used: BTreeSet<u64>,
}

impl Ids {
    pub(super) fn new(rng: Rng) -> Self {
        Self { rng, used: BTreeSet::new() }
    }

    pub(super) fn next(&mut self) -> String {
        loop {
            let id = self.rng.u64(1_000_000_000..10_000_000_000);
            if self.used.insert(id) {
                return id.to_string();
            }
        }
    }
}

/// A name for the `nth` job of its kind. Consecutive jobs have different names.
pub(super) fn job_name(kind: Kind, nth: usize) -> String {
    let round = nth / REFERENCES.len();
    let (reference, sample) = (REFERENCES[nth % REFERENCES.len()].0, SAMPLES[nth % SAMPLES.len()]);
    let name = match kind {
        Kind::ReferenceImport => reference.to_owned(),
        Kind::ReadSetImport => format!("{sample} import"),
        Kind::ReadSetExport => format!("{sample} export"),
        Kind::ReadSetActivation => format!("{sample} activation"),
    };
    if round == 0 { name } else { format!("{name} ({})", round + 1) }
}

/// The items of the `nth` job of its kind. In some jobs the first two items are equal, as the API allows for sources.
pub(super) fn generate(kind: Kind, nth: usize, outcome: Outcome, ids: &mut Ids, rng: &mut Rng) -> Vec<SimulatedItem> {
    let least = if outcome == Outcome::CompletedWithFailures { 2 } else { 1 };
    let count = usize::from(rng.u8(least..=ITEMS_MAX));
    let equal = rng.u8(0..4) == 0;
    let position = |position: usize| if equal && position == 1 { nth } else { nth + position };
    (0..count).map(|item| generate_item(kind, position(item), ids)).collect()
}

fn generate_item(kind: Kind, nth: usize, ids: &mut Ids) -> SimulatedItem {
    let result_id = ids.next();
    let requested = match kind {
        Kind::ReferenceImport => reference_source(nth),
        Kind::ReadSetImport => read_set_source(nth),
        Kind::ReadSetExport => json!({ "id": result_id }),
        Kind::ReadSetActivation => json!({ "readSetId": result_id }),
    };
    let Value::Object(requested) = requested else { return SimulatedItem { requested: Map::new(), result_id } };
    SimulatedItem { requested, result_id }
}

/// Some sources lack a description or tags: the API requires only the status.
fn reference_source(nth: usize) -> Value {
    let (name, organism, file) = REFERENCES[nth % REFERENCES.len()];
    let mut source = json!({
        "sourceFile": format!("s3://example-reference-genomes/{name}/{file}"),
        "name": name,
        "tags": if nth.is_multiple_of(3) { json!({ "organism": organism, "assembly": name }) } else { json!({}) },
    });
    if !nth.is_multiple_of(5) {
        source["description"] = json!(organism);
    }
    source
}

/// One in three sources is a BAM file, the others are pairs of FASTQ files.
fn read_set_source(nth: usize) -> Value {
    let sample = SAMPLES[nth % SAMPLES.len()];
    let file = |name: &str| format!("s3://example-sequencing-runs/{sample}/{sample}{name}");
    let (file_type, files) = if nth.is_multiple_of(3) {
        ("BAM", json!({ "source1": file(".bam") }))
    } else {
        ("FASTQ", json!({ "source1": file("_R1.fastq.gz"), "source2": file("_R2.fastq.gz") }))
    };
    let mut source = json!({
        "sourceFiles": files,
        "sourceFileType": file_type,
        "subjectId": sample,
        "sampleId": format!("{sample}-{}", nth / SAMPLES.len() + 1),
        "tags": {},
    });
    if !nth.is_multiple_of(5) {
        source["name"] = json!(sample);
        source["generatedFrom"] = json!("whole genome sequencing");
    }
    source
}
