// What the store promises when something goes wrong: a killed process, a full disk, a damaged or
// foreign file.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include "proto/base/file_util.h"
#include "server/store/data_dir_lock.h"
#include "server/store/migration.h"
#include "server/store/sqlite.h"
#include "tests/fakes/fault_vfs.h"
#include "tests/server/store/store_fixture.h"

extern char** environ;

namespace finetuned {
namespace {

using ::testing::HasSubstr;

TEST(Durability, WhatAKilledProcessAcknowledgedIsThere) {
  TempDir dir;
  const std::string db = dir / "jobs.db";
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  std::set<std::string> jobs;
  int64_t last_event = 0;
  for (int round = 0; round < 5; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
    const char* argv[] = {STORE_WRITER, db.c_str(), nullptr};
    pid_t child;
    ASSERT_EQ(
        posix_spawn(&child, STORE_WRITER, &actions, nullptr, const_cast<char**>(argv), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_ends[1]);
    // Read some acknowledgements, kill, read what else had been said.
    const size_t enough = 2000 + random() % 60000;
    std::string text;
    char buffer[4096];
    bool killed = false;
    while (true) {
      const ssize_t n = read(pipe_ends[0], buffer, sizeof(buffer));
      if (n <= 0) break;
      text.append(buffer, static_cast<size_t>(n));
      if (!killed && text.size() >= enough) {
        kill(child, SIGKILL);
        killed = true;
      }
    }
    close(pipe_ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(killed && WIFSIGNALED(status))
        << "the writer ended by itself: " << text.substr(0, 200);
    std::istringstream lines(text);
    for (std::string kind, value; lines >> kind >> value;) {
      if (kind == "job") jobs.insert(value);
      if (kind == "event") last_event = std::max<int64_t>(last_event, std::stoll(value));
    }

    auto store = OpenSqliteStore({.path = db});
    ASSERT_TRUE(store.ok()) << store.status();
    (*store)->ReadSync([&](StoreReader& reader) {
      for (const std::string& id : jobs)
        EXPECT_TRUE(reader.GetJob(id).ok()) << id << " was acknowledged and is lost";
      const int64_t last = *reader.LastSeq("log");
      EXPECT_GE(last, last_event);
      int64_t expected = 0;
      while (true) {
        const auto events = reader.EventsAfter("log", expected, 1000);
        ASSERT_TRUE(events.ok());
        if (events->empty()) break;
        for (const auto& bytes : *events) {
          v1::JobEvent event;
          ASSERT_TRUE(event.ParseFromString(*bytes));
          ASSERT_EQ(event.seq(), ++expected);
        }
      }
      EXPECT_EQ(expected, last);
    });
    std::printf("round %d: %zu jobs acknowledged, all there; events 1…%ld\n", round, jobs.size(),
                last_event);
  }
}

class FaultTest : public StoreTest {
 protected:
  static void SetUpTestSuite() { FaultVfs::Install(); }
  void TearDown() override { FaultVfs::Set(FaultVfs::Fault::kNone); }
};

TEST_F(FaultTest, FullDiskFailsTheWritesAndTheStoreGoesOnAfterwards) {
  FT_OK(Insert(MakeJob("before")));
  FaultVfs::Set(FaultVfs::Fault::kDiskFull);
  for (int i = 0; i < 5; ++i) {
    const absl::Status status = Insert(MakeJob(absl::StrCat("full", i)));
    EXPECT_TRUE(IsDiskFull(status)) << status;
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  }
  EXPECT_GT(FaultVfs::failures(), 0);
  EXPECT_TRUE(Get("before").ok()) << "reads go on";
  FaultVfs::Set(FaultVfs::Fault::kNone);
  FT_OK(Insert(MakeJob("after")));
  FT_OK(Insert(MakeJob("full0")));
  Reopen();
  EXPECT_TRUE(Get("before").ok());
  EXPECT_TRUE(Get("after").ok());
  EXPECT_TRUE(Get("full0").ok());
  EXPECT_TRUE(absl::IsNotFound(Get("full1").status()));
}

TEST_F(FaultTest, AnUndoneEventIsNeitherHeardNorNumbered) {
  FT_OK(Insert(MakeJob("a")));
  int heard = 0;
  store_->SetEventListener(
      [&](const std::string&, int64_t, std::shared_ptr<const std::string>) { ++heard; });
  const auto append = [&] {
    return store_->WriteSync(
        [](StoreWriter& writer) { return writer.AppendEvent("a", LogEvent("x")).status(); });
  };
  FT_OK(append());
  for (const auto fault :
       {FaultVfs::Fault::kDiskFull, FaultVfs::Fault::kWriteError, FaultVfs::Fault::kSyncError}) {
    FaultVfs::Set(fault);
    const absl::Status status = append();
    EXPECT_FALSE(status.ok());
    EXPECT_TRUE(absl::IsUnavailable(status) || IsDiskFull(status)) << status;
    FaultVfs::Set(FaultVfs::Fault::kNone);
  }
  EXPECT_EQ(heard, 1);
  FT_OK(append());
  EXPECT_EQ(heard, 2);
  EXPECT_EQ(Get("a")->last_seq(), 2);
}

TEST(OpenStore, DamagedFileIsDataLossWithACure) {
  TempDir dir;
  const std::string path = dir / "jobs.db";
  {
    auto store = OpenSqliteStore({.path = path});
    ASSERT_TRUE(store.ok());
    for (int i = 0; i < 200; ++i) {
      ASSERT_TRUE((*store)
                      ->WriteSync([&](StoreWriter& w) {
                        return w.InsertJob(MakeJob(absl::StrCat("job", i)));
                      })
                      .ok());
    }
  }
  std::string bytes = *ReadFile(path);
  ASSERT_GT(bytes.size(), 40000u);
  for (size_t at = 4096 + 100; at + 200 < bytes.size(); at += 4096)
    bytes.replace(at, 200, std::string(200, '\x5a'));
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  auto store = OpenSqliteStore({.path = path});
  ASSERT_TRUE(absl::IsDataLoss(store.status())) << store.status();
  EXPECT_THAT(std::string(store.status().message()), HasSubstr(".recover"));
  EXPECT_THAT(std::string(store.status().message()), HasSubstr(path));
}

TEST(OpenStore, RandomDamageNeverCrashes) {
  TempDir dir;
  const std::string path = dir / "jobs.db";
  { ASSERT_TRUE(OpenSqliteStore({.path = path}).ok()); }
  const std::string good = *ReadFile(path);
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 60; ++round) {
    std::string bytes = good;
    for (int i = 0; i < 40; ++i)
      bytes[random() % (round % 2 ? bytes.size() : 512)] = static_cast<char>(random() % 256);
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    for (const char* suffix : {"-wal", "-shm"}) unlink((path + suffix).c_str());
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    auto store = OpenSqliteStore({.path = path});
    if (store.ok())
      (void)(*store)->WriteSync([](StoreWriter& writer) { return writer.InsertJob(MakeJob("x")); });
  }
}

TEST(OpenStore, NotADatabase) {
  TempDir dir;
  const std::string path = dir / "jobs.db";
  ASSERT_TRUE(WriteFileAtomic(path, std::string(10000, 'x')).ok());
  const auto store = OpenSqliteStore({.path = path});
  EXPECT_TRUE(absl::IsDataLoss(store.status())) << store.status();
  EXPECT_EQ(*ReadFile(path), std::string(10000, 'x')) << "the file is left as it was";
}

TEST(OpenStore, MissingDirectoryIsNamed) {
  TempDir dir;
  const auto store = OpenSqliteStore({.path = dir / "none/jobs.db"});
  EXPECT_TRUE(absl::IsNotFound(store.status())) << store.status();
  EXPECT_THAT(std::string(store.status().message()), HasSubstr(dir / "none/jobs.db"));
}

TEST(MigrationTest, NewerSchemaAndForeignDatabaseAreRefused) {
  TempDir dir;
  const std::string newer = dir / "newer.db", foreign = dir / "foreign.db";
  { ASSERT_TRUE(OpenSqliteStore({.path = newer}).ok()); }
  ASSERT_TRUE(Database::Open(newer, false)->Exec("PRAGMA user_version=999").ok());
  auto store = OpenSqliteStore({.path = newer});
  EXPECT_TRUE(absl::IsFailedPrecondition(store.status())) << store.status();
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("version 999"));
  ASSERT_TRUE(Database::Open(foreign, false)->Exec("CREATE TABLE photos (x)").ok());
  store = OpenSqliteStore({.path = foreign});
  EXPECT_TRUE(absl::IsFailedPrecondition(store.status())) << store.status();
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("another program"));
}

TEST(MigrationTest, AnOlderSchemaIsBackedUpAndMigrated) {
  TempDir dir;
  const std::string path = dir / "jobs.db";
  {
    auto store = OpenSqliteStore({.path = path});
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE(
        (*store)
            ->WriteSync([](StoreWriter& writer) { return writer.InsertJob(MakeJob("old")); })
            .ok());
  }
  std::vector<Migration> migrations = Migrations();
  const int old_version = static_cast<int>(migrations.size());
  migrations.push_back(
      {old_version + 1, "next", "ALTER TABLE jobs ADD COLUMN note TEXT NOT NULL DEFAULT 'n';"});
  const std::string backup = absl::StrCat(path, ".v", old_version, ".backup");
  {
    auto database = Database::Open(path, false);
    ASSERT_TRUE(database.ok());
    // A migration that fails leaves the old schema whole.
    std::vector<Migration> broken = migrations;
    broken.back().sql = "ALTER TABLE jobs ADD COLUMN half TEXT; CREATE TABLE jobs (again);";
    const absl::Status status = Migrate(*database, path, broken);
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr("migration next failed"));
    EXPECT_EQ(*database->QueryInt("PRAGMA user_version"), old_version);
    EXPECT_EQ(
        *database->QueryInt("SELECT count(*) FROM pragma_table_info('jobs') WHERE name = 'half'"),
        0);

    ASSERT_TRUE(Migrate(*database, path, migrations).ok());
    EXPECT_EQ(*database->QueryInt("PRAGMA user_version"), old_version + 1);
    EXPECT_EQ(*database->QueryInt("SELECT count(*) FROM jobs WHERE job_id = 'old' AND note = 'n'"),
              1);
  }
  // The backup opens with the old build's migrations.
  auto restored = OpenSqliteStore({.path = backup});
  ASSERT_TRUE(restored.ok()) << restored.status();
  (*restored)->ReadSync([](StoreReader& reader) { EXPECT_TRUE(reader.GetJob("old").ok()); });
  // And the migrated one is refused by it.
  EXPECT_TRUE(absl::IsFailedPrecondition(OpenSqliteStore({.path = path}).status()));
}

TEST(MigrationTest, NumbersAreInOrderAndTheSchemaPageNamesEveryColumn) {
  const auto& migrations = Migrations();
  for (size_t i = 0; i < migrations.size(); ++i)
    EXPECT_EQ(migrations[i].version, static_cast<int>(i) + 1);
  const auto page =
      ReadFile(std::string(getenv("FINETUNED_SOURCE_DIR")) + "/server/store/SCHEMA.md");
  ASSERT_TRUE(page.ok()) << page.status();
  TempDir dir;
  auto database = Database::Open(dir / "jobs.db", false);
  ASSERT_TRUE(Migrate(*database, dir / "jobs.db", migrations).ok());
  Statement columns = database->PrepareOnce(
      "SELECT m.name, group_concat(c.name, ' ') FROM sqlite_master m, pragma_table_info(m.name) c "
      "WHERE m.type = 'table' GROUP BY m.name");
  int tables = 0;
  while (*columns.Step()) {
    const std::string heading = absl::StrCat("\n## ", columns.Text(0), "\n");
    const size_t begin = page->find(heading);
    ASSERT_NE(begin, std::string::npos) << heading;
    const std::string section = page->substr(begin, page->find("\n## ", begin + 4) - begin);
    std::istringstream names(columns.Text(1));
    for (std::string name; names >> name;) {
      EXPECT_THAT(section, HasSubstr(absl::StrCat("\n| ", name, " | ")));
    }
    ++tables;
  }
  EXPECT_EQ(tables, 6);
}

TEST(DataDirLockTest, ASecondServerIsRefusedWithThePidOfTheFirst) {
  TempDir dir;
  {
    const auto first = DataDirLock::Acquire(dir.path());
    ASSERT_TRUE(first.ok()) << first.status();
    const auto second = DataDirLock::Acquire(dir.path());
    EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
    EXPECT_THAT(std::string(second.status().message()),
                HasSubstr(absl::StrCat("pid ", getpid(), ")")));
    EXPECT_THAT(std::string(second.status().message()), HasSubstr(dir.path()));
  }
  EXPECT_TRUE(DataDirLock::Acquire(dir.path()).ok()) << "a file left behind is no lock";
  EXPECT_TRUE(absl::IsNotFound(DataDirLock::Acquire(dir / "none").status()));
}

}  // namespace
}  // namespace finetuned
