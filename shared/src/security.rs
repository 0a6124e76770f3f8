//! Who is who: certificates, keys, tokens and names.
