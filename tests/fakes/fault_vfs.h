// A disk under SQLite that fails on command: every file of every database opened after Install()
// goes through it.
#pragma once

namespace finetuned {

class FaultVfs {
 public:
  enum class Fault {
    kNone,
    kDiskFull,    // writes fail as with ENOSPC
    kWriteError,  // writes fail as with EIO
    kSyncError,   // fsync fails as with EIO
  };

  // Makes it the process's default VFS. Call once, before a database is opened; it passes
  // everything through until Set() is called.
  static void Install();
  // From now on. Any thread.
  static void Set(Fault fault);
  // Writes or fsyncs that were failed since Install().
  static int failures();
};

}  // namespace finetuned
