//! All messages of 9P2000.L.
//!
//! The list is the one of the kernel (include/net/9p/9p.h), the fields are those of its client.

use super::field::{Field, Names, Qid, Qids, Reader, Text};
use super::{HEADER_BYTES, Header, WireError};

/// Makes an enum of messages, what reads them and what writes them.
macro_rules! messages {
    ($(#[$outer:meta])* $enum:ident { $(
        $(#[$doc:meta])* $kind:literal $name:ident { $($field:ident: $type:ty),* $(,)? }
    )* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "fields have the names that the protocol has for them")]
        pub enum $enum<'a> {
            $( $(#[$doc])* $name { $($field: $type),* }, )*
        }

        impl<'a> $enum<'a> {
            /// The types of all of them.
            pub const KINDS: &'static [u8] = &[$($kind),*];

            /// Reads what is behind a header of that kind, and says what is left.
            fn read(kind: u8, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
                let mut reader = Reader(bytes);
                let message = match kind {
                    $( $kind => Self::$name {
                        $( $field: Field::read(&mut reader).ok_or(WireError::Malformed(kind))?, )*
                    }, )*
                    _ => return Err(WireError::Unknown(kind)),
                };
                Ok((message, reader.0))
            }

            /// Its type.
            pub fn kind(&self) -> u8 {
                match self {
                    $( Self::$name { .. } => $kind, )*
                }
            }

            /// Writes its fields.
            pub fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$name { $($field),* } => {
                        $( Field::write($field, out); )*
                        let _ = &out;
                    } )*
                }
            }

            /// The whole message, with data behind it where it is one that has data.
            pub fn encode(&self, tag: u16, data: &[u8]) -> Vec<u8> {
                let mut out = vec![0; HEADER_BYTES];
                self.write(&mut out);
                out.extend(data);
                let header = Header { size: out.len() as u32, kind: self.kind(), tag };
                out[..HEADER_BYTES].copy_from_slice(&header.encode());
                out
            }
        }
    };
}

messages! {
    /// What a client asks.
    #[expect(clippy::large_enum_variant, reason = "lives on the stack, one at a time")]
    Request {
        /// What the file system has room for.
        8 Statfs { fid: u32 }
        /// Opens a file.
        12 Lopen { fid: u32, flags: u32 }
        /// Makes a file in a directory; the fid is the file's from then on.
        14 Lcreate { fid: u32, name: Text<'a>, flags: u32, mode: u32, gid: u32 }
        /// Makes a symbolic link.
        16 Symlink { fid: u32, name: Text<'a>, target: Text<'a>, gid: u32 }
        /// Makes a file of another kind.
        18 Mknod { fid: u32, name: Text<'a>, mode: u32, major: u32, minor: u32, gid: u32 }
        /// Moves a file.
        20 Rename { fid: u32, directory: u32, name: Text<'a> }
        /// Asks for the text of a symbolic link.
        22 Readlink { fid: u32 }
        /// Asks for attributes.
        24 Getattr { fid: u32, mask: u64 }
        /// Changes attributes.
        26 Setattr {
            fid: u32, valid: u32, mode: u32, uid: u32, gid: u32, size: u64,
            atime: u64, atime_nsec: u64, mtime: u64, mtime_nsec: u64,
        }
        /// Makes a fid that an extended attribute is read from; the list of all without a name.
        30 Xattrwalk { fid: u32, newfid: u32, name: Text<'a> }
        /// Makes of a fid one that an extended attribute is written to.
        32 Xattrcreate { fid: u32, name: Text<'a>, size: u64, flags: u32 }
        /// Reads a directory.
        40 Readdir { fid: u32, offset: u64, count: u32 }
        /// Makes a file durable.
        50 Fsync { fid: u32, datasync: u32 }
        /// Takes or gives back a lock.
        52 Lock {
            fid: u32, kind: u8, flags: u32, start: u64, length: u64, process: u32, client: Text<'a>,
        }
        /// Asks for a lock that is in the way.
        54 Getlock {
            fid: u32, kind: u8, start: u64, length: u64, process: u32, client: Text<'a>,
        }
        /// Gives a file one more name.
        70 Link { directory: u32, fid: u32, name: Text<'a> }
        /// Makes a directory.
        72 Mkdir { fid: u32, name: Text<'a>, mode: u32, gid: u32 }
        /// Moves a name.
        74 Renameat { from: u32, old: Text<'a>, to: u32, new: Text<'a> }
        /// Removes a name.
        76 Unlinkat { fid: u32, name: Text<'a>, flags: u32 }
        /// Begins a session.
        100 Version { msize: u32, version: Text<'a> }
        /// Asks for a fid to authenticate by.
        102 Auth { afid: u32, user: Text<'a>, tree: Text<'a>, uid: u32 }
        /// Asks for the root.
        104 Attach { fid: u32, afid: u32, user: Text<'a>, tree: Text<'a>, uid: u32 }
        /// Is not interested in an answer any more.
        108 Flush { tag: u16 }
        /// Makes a fid of what names lead to.
        110 Walk { fid: u32, newfid: u32, names: Names<'a> }
        /// Reads a file.
        116 Read { fid: u32, offset: u64, count: u32 }
        /// Writes to a file; the data is behind it.
        118 Write { fid: u32, offset: u64, count: u32 }
        /// Is done with a fid.
        120 Clunk { fid: u32 }
        /// Removes a file, and is done with its fid.
        122 Remove { fid: u32 }
    }
}

messages! {
    /// What a server answers.
    Reply {
        /// It failed, with this number of Linux.
        7 Lerror { code: u32 }
        /// What the file system has room for.
        9 Statfs {
            kind: u32, block_size: u32, blocks: u64, free: u64, available: u64, files: u64,
            free_files: u64, id: u64, name_length: u32,
        }
        /// It is open.
        13 Lopen { qid: Qid, iounit: u32 }
        /// It is there and open.
        15 Lcreate { qid: Qid, iounit: u32 }
        /// It is there.
        17 Symlink { qid: Qid }
        /// It is there.
        19 Mknod { qid: Qid }
        /// It has moved.
        21 Rename {}
        /// Its text.
        23 Readlink { target: Text<'a> }
        /// What it looks like.
        25 Getattr {
            valid: u64, qid: Qid, mode: u32, uid: u32, gid: u32, links: u64, device: u64, size: u64,
            block_size: u64, blocks: u64, atime: u64, atime_nsec: u64, mtime: u64, mtime_nsec: u64,
            ctime: u64, ctime_nsec: u64, btime: u64, btime_nsec: u64, generation: u64,
            data_version: u64,
        }
        /// It is changed.
        27 Setattr {}
        /// How long it is.
        31 Xattrwalk { size: u64 }
        /// It may be written.
        33 Xattrcreate {}
        /// Entries, which are behind it.
        41 Readdir { count: u32 }
        /// It is durable.
        51 Fsync {}
        /// Whether it is locked.
        53 Lock { status: u8 }
        /// What is in the way.
        55 Getlock { kind: u8, start: u64, length: u64, process: u32, client: Text<'a> }
        /// It has one more name.
        71 Link {}
        /// It is there.
        73 Mkdir { qid: Qid }
        /// It has moved.
        75 Renameat {}
        /// It is gone.
        77 Unlinkat {}
        /// What both sides speak.
        101 Version { msize: u32, version: Text<'a> }
        /// The root.
        105 Attach { qid: Qid }
        /// No answer will follow.
        109 Flush {}
        /// What the names led to.
        111 Walk { qids: Qids }
        /// Data, which is behind it.
        117 Read { count: u32 }
        /// How much was written.
        119 Write { count: u32 }
        /// The fid is free.
        121 Clunk {}
        /// It is gone, and the fid is free.
        123 Remove {}
    }
}

impl<'a> Request<'a> {
    /// Reads what is behind a header of that kind. Of a write it is the fields that count: the data
    /// behind these is no business of this function.
    pub fn decode(kind: u8, bytes: &'a [u8]) -> Result<Self, WireError> {
        match Self::read(kind, bytes) {
            Ok((request @ Self::Write { .. }, _) | (request, [])) => Ok(request),
            Ok(_) => Err(WireError::Malformed(kind)),
            Err(error) => match (kind, bytes.try_into()) {
                // Clients of old do not say how durable.
                (50, Ok(fid)) => Ok(Self::Fsync { fid: u32::from_le_bytes(fid), datasync: 0 }),
                _ => Err(error),
            },
        }
    }
}

impl<'a> Reply<'a> {
    /// Reads what is behind a header of that kind, and the data behind that.
    pub fn decode(kind: u8, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        match Self::read(kind, bytes)? {
            (reply @ (Self::Read { count } | Self::Readdir { count }), data)
                if data.len() == count as usize =>
            {
                Ok((reply, data))
            }
            (Self::Read { .. } | Self::Readdir { .. }, _) => Err(WireError::Malformed(kind)),
            (reply, []) => Ok((reply, &[])),
            _ => Err(WireError::Malformed(kind)),
        }
    }
}
