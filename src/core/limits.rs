//! The limits of what refwatch accepts from the service. They bound memory and disk if an endpoint is broken or hostile.
//!
//! Past a limit, the rest is ignored, logged once for each job or store, and counted.

/// The longest page token that is sent back, in bytes. AWS's tokens have a few hundred. The token is part of a URI, where an escape
/// triples it; HTTP servers commonly accept URIs of 8 to 64 KiB, and the SDK panics above 64 KiB.
pub const PAGE_TOKEN_BYTES_MAX: usize = 8_192;

/// Pages of one part of a listing. The next part continues with the next page, and compares the jobs that are watched then. At AWS's
/// default quota a part takes 25 s.
pub const PART_PAGES_MAX: usize = 100;

/// Defines every limit once: its variant, label and maximum.
macro_rules! limits {
    ($($(#[$doc:meta])* $limit:ident: $label:literal, $max:expr, $text:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Limit {
            $($(#[$doc])* $limit,)*
        }

        impl Limit {
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$limit),*];

            /// The metric label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$limit => $label,)*
                }
            }

            #[must_use]
            pub const fn max(self) -> usize {
                match self {
                    $(Self::$limit => $max,)*
                }
            }

            /// Names the limited things for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$limit => $text,)*
                }
            }
        }
    };
}

// Limit: label, maximum, text.
limits! {
    /// Watched jobs of one store, and handed-over jobs that listings may still contain. One takes about 6 KB of memory, so these
    /// take 300 MB of the unit's 1 GB. At AWS's default quota, one poll of each takes three hours.
    DiscoveredJobs: "discovered_jobs", 50_000, "discovered jobs of a store";
    /// `maxResults` of a request, which is the API's maximum.
    PageJobs: "page_jobs", 100, "jobs on a page of a listing";
    /// Pages until a listing starts again. They hold twice as many jobs as are discovered.
    ListingPages: "listing_pages", 1_000, "pages of a listing";
    /// `StartReferenceImportJob` accepts 100 sources. So many take 4 MB of memory.
    Items: "items", 20_000, "items of a job";
    /// Saved transitions of a job. A job has at most four in its life; a service may repeat old ones for a while.
    Transitions: "transitions", 100, "transitions of a job";
    /// Saved changes of a job other than transitions. An item has three in its life. So many take 10 MB of disk.
    Changes: "changes", 60_000, "saved changes of the items and the message of a job";
    /// Bytes of a message, a name, a file or a status. AWS's messages are sentences; one may quote two keys of S3 with 1,024 bytes each.
    TextBytes: "text_bytes", 4_096, "bytes of a message, a name or a status";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_keep_their_labels() {
        let labels = "discovered_jobs page_jobs listing_pages items transitions changes text_bytes";
        assert_eq!(Limit::ALL.map(Limit::label).join(" "), labels);
    }
}
