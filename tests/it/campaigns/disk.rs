//! A model of a disk that loses power: durable content, pending operations, and the possible states after the loss.
//!
//! It guarantees no more than POSIX. A file's content is durable after a sync of the file, its name after a sync of the directory.
//! Until then each write, truncation, creation and removal may be lost, in any order. A write may be partial in units of sectors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::trace::Operation;

/// The unit of atomic writes, in bytes.
const SECTOR: usize = 512;

/// Files by their path.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Default)]
pub(super) struct Disk {
    /// The durable content of every file, removed ones included.
    contents: Vec<Vec<u8>>,
    /// Durable names; `None` is a directory.
    entries: BTreeMap<PathBuf, Option<usize>>,
    /// Names as processes see them.
    names: BTreeMap<PathBuf, Option<usize>>,
    /// Unsynced operations in order.
    pending: Vec<Pending>,
}

enum Pending {
    Enter { path: PathBuf, file: Option<usize> },
    Remove { path: PathBuf },
    Write { file: usize, at: usize, bytes: Vec<u8> },
    Truncate { file: usize, length: usize },
}

/// The fate of unsynced operations.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    Drops,
    Keeps,
    /// Random for each operation and sector.
    Tears,
}

impl Disk {
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::MakeDirectory(path) => self.enter(path, None),
            Operation::Create(path) if self.names.contains_key(path) => {}
            Operation::Create(path) => {
                self.contents.push(Vec::new());
                self.enter(path, Some(self.contents.len() - 1));
            }
            Operation::Remove(path) => {
                self.names.remove(path).expect("a name");
                self.pending.push(Pending::Remove { path: path.clone() });
            }
            Operation::Write { path, at, bytes } => {
                self.pending.push(Pending::Write { file: self.file(path), at: *at, bytes: bytes.clone() });
            }
            Operation::Truncate { path, length } => {
                self.pending.push(Pending::Truncate { file: self.file(path), length: *length });
            }
            Operation::Sync(path) => self.sync(path),
            Operation::Acknowledge(_) => {}
        }
    }

    pub(super) fn after(&self, cut: Cut, random: &mut fastrand::Rng) -> Files {
        let mut entries = self.entries.clone();
        for pending in self.pending.iter().filter(|pending| pending.file().is_none()) {
            if cut.keeps(random) {
                pending.apply_to_names(&mut entries);
            }
        }
        let reachable = |(path, file): (&PathBuf, &Option<usize>)| {
            let reached = path.ancestors().skip(1).all(|above| above == Path::new("") || entries.contains_key(above));
            Some((path.clone(), file.filter(|_| reached)?))
        };
        let mut files = Files::new();
        for (path, file) in entries.iter().filter_map(reachable) {
            let mut content = self.contents[file].clone();
            for pending in self.pending.iter().filter(|pending| pending.file() == Some(file)) {
                pending.apply_to_content(&mut content, cut, random);
            }
            files.insert(path, content);
        }
        files
    }

    fn enter(&mut self, path: &Path, file: Option<usize>) {
        self.names.insert(path.to_path_buf(), file);
        self.pending.push(Pending::Enter { path: path.to_path_buf(), file });
    }

    fn file(&self, path: &Path) -> usize {
        self.names[path].expect("a file")
    }

    fn sync(&mut self, path: &Path) {
        let file = self.names.get(path).copied().flatten();
        let synced = |pending: &mut Pending| match pending {
            Pending::Enter { path: entered, .. } | Pending::Remove { path: entered } => {
                file.is_none() && entered.parent() == Some(path)
            }
            Pending::Write { file: written, .. } | Pending::Truncate { file: written, .. } => file == Some(*written),
        };
        for pending in self.pending.extract_if(.., synced) {
            match pending.file() {
                None => pending.apply_to_names(&mut self.entries),
                Some(file) => {
                    pending.apply_to_content(&mut self.contents[file], Cut::Keeps, &mut fastrand::Rng::with_seed(0));
                }
            }
        }
    }
}

impl Cut {
    fn keeps(self, random: &mut fastrand::Rng) -> bool {
        match self {
            Self::Drops => false,
            Self::Keeps => true,
            Self::Tears => random.bool(),
        }
    }
}

impl Pending {
    /// The file whose content changes; `None` for changes of names.
    fn file(&self) -> Option<usize> {
        match self {
            Self::Enter { .. } | Self::Remove { .. } => None,
            Self::Write { file, .. } | Self::Truncate { file, .. } => Some(*file),
        }
    }

    fn apply_to_names(&self, names: &mut BTreeMap<PathBuf, Option<usize>>) {
        match self {
            Self::Enter { path, file } => drop(names.insert(path.clone(), *file)),
            Self::Remove { path } => drop(names.remove(path)),
            Self::Write { .. } | Self::Truncate { .. } => {}
        }
    }

    fn apply_to_content(&self, content: &mut Vec<u8>, cut: Cut, random: &mut fastrand::Rng) {
        match self {
            Self::Enter { .. } | Self::Remove { .. } => {}
            Self::Truncate { length, .. } => {
                if cut.keeps(random) {
                    content.resize(*length, 0);
                }
            }
            Self::Write { at, bytes, .. } => {
                // All, nothing, or some sectors. A new length may be kept without the content.
                let cut = match cut {
                    Cut::Tears => *random.choice(&[Cut::Drops, Cut::Keeps, Cut::Tears]).expect("one"),
                    whole => whole,
                };
                let end = at + bytes.len();
                if matches!(cut, Cut::Tears) && random.bool() {
                    content.resize(content.len().max(end), 0);
                }
                let mut from = *at;
                while from < end {
                    let to = end.min((from / SECTOR + 1) * SECTOR);
                    if cut.keeps(random) {
                        content.resize(content.len().max(to), 0);
                        content[from..to].copy_from_slice(&bytes[from - at..to - at]);
                    }
                    from = to;
                }
            }
        }
    }
}
