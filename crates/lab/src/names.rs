//! Names of people and machines, and the generator that chooses among them.

pub const GIVEN: [&str; 24] = [
    "ana", "bela", "carl", "dora", "emil", "fatma", "greta", "hugo", "ines", "jonas", "kira",
    "luca", "mara", "nils", "olga", "paul", "rosa", "said", "tara", "ugo", "vera", "wim", "yara",
    "zoe",
];
pub const FAMILY: [&str; 24] = [
    "adler", "bruun", "costa", "duval", "evers", "falk", "garcia", "holm", "ivanov", "jansen",
    "keller", "lindt", "moreau", "novak", "okoye", "petrov", "quist", "rossi", "silva", "tanaka",
    "ulrich", "vogel", "weber", "zeman",
];
/// What a Linux server does, which is also its name.
pub const SERVER_ROLES: [&str; 6] = ["web", "db", "app", "build", "files", "mail"];

/// Domain of the simulated Windows accounts, and the suffix of all host names.
pub const DOMAIN: &str = "LAB";
pub const SUFFIX: &str = "lab.example";

/// SplitMix64: small, and the same everywhere for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for one purpose of one machine.
    pub fn new(seed: u64, machine: usize, purpose: &str) -> Random {
        let mut random = Random(seed ^ (machine as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for byte in purpose.bytes() {
            random.0 ^= u64::from(byte);
            random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound; 0 for the bound 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
