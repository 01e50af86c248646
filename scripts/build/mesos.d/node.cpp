// Programs around the Mesos library: the packaged library has all of Mesos in it, but no main function.
//
//   mesos-node master            a Mesos master (LIBPROCESS_IP, LIBPROCESS_PORT; flags as MESOS_* variables)
//   mesos-node agent IP:PORT     a Mesos agent of the master at IP:PORT (same variables)
//   mesos-containerizer launch   what the agent runs to start an executor
//
// There are no headers to the library, so the few classes used are declared here just far enough to get the right
// symbol names (x86-64, GCC's C++11 ABI, Mesos 1.11.0), and their objects live in buffers that are larger than any
// of them. `local::launch` is the one entry point that builds masters and agents: it starts a master and
// MESOS_NUM_SLAVES agents in this process. For an agent alone, its in-process master stays idle: the agent's detector
// is told that the leader is the remote one.
#include <arpa/inet.h>
#include <cxxabi.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <libgen.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <typeinfo>
#include <utility>

// stout's Option<T>: a state word, then the value.
template <typename T>
struct Option {
  int state;
  T value;
};
template <>
struct Option<std::string> {
  int state;
  std::string value;
  Option() : state(1) {}
  Option(const char* s) : state(0), value(s) {}
};

// A return slot big enough for any class returned by value.
struct Returned {
  alignas(16) char bytes[1024];
  Returned() {}
  Returned(const Returned&) {}
  ~Returned() {}
};

namespace google::protobuf {
struct MessageLite {
  bool ParseFromString(const std::string&);
};
}  // namespace google::protobuf

namespace process {
void initialize(const Option<std::string>&, const Option<std::string>&, const Option<std::string>&);
}

#define APPOINT "_ZN5mesos6master8detector24StandaloneMasterDetector7appointERK6OptionINS_10MasterInfoEE"
extern "C" {
extern const std::type_info _ZTIN5mesos8internal5local5FlagsE;
extern const std::type_info _ZTIN5flags9FlagsBaseE;
extern void* _ZTVN5mesos8internal5slave24MesosContainerizerLaunchE[];
extern void* _ZTVN5mesos8internal5slave24MesosContainerizerLaunch5FlagsE[];
void _ZN5mesos8internal5local5FlagsC1Ev(void*);
void _ZN5mesos8internal5slave24MesosContainerizerLaunch5FlagsC1Ev(void*);
}
Returned load_flags(void* base, const Option<std::string>& prefix, int argc, const char* const* argv, bool unknowns,
                    bool duplicates)
    asm("_ZN5flags9FlagsBase4loadERK6OptionINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEEiPKPKcbb");
Returned local_launch(const void* flags, void* allocator)
    asm("_ZN5mesos8internal5local6launchERKNS1_5FlagsEPNS_9allocator9AllocatorE");
void appoint(void* detector, const void* leader) asm(APPOINT);

namespace {

[[noreturn]] void die(const std::string& why) {
  fprintf(stderr, "mesos-node: %s\n", why.c_str());
  exit(2);
}

// Address of OBJECT's base class WANT, found through the type information (the base is virtual).
void* upcast(void* object, const std::type_info* type, const std::type_info* want) {
  if (*type == *want) return object;
  if (auto* multi = dynamic_cast<const abi::__vmi_class_type_info*>(type)) {
    for (unsigned i = 0; i < multi->__base_count; i++) {
      auto& base = multi->__base_info[i];
      long offset = base.__offset();
      if (base.__is_virtual_p()) offset = *(long*)(*(char**)object + offset);
      if (void* found = upcast((char*)object + offset, base.__base_type, want)) return found;
    }
  } else if (auto* single = dynamic_cast<const abi::__si_class_type_info*>(type)) {
    return upcast(object, single->__base_type, want);
  }
  return nullptr;
}

// Reads flags from variables that begin with PREFIX (and from ARGV), or ends the program with what is wrong.
// The result is a Try<Warnings>: an error is an Option<std::string> at 32 whose state is 0 when there is one.
void load_from_environment(void* flags_base, const char* prefix, int argc, const char* const* argv) {
  Returned result = load_flags(flags_base, Option<std::string>(prefix), argc, argv, false, false);
  if (*(int*)(result.bytes + 32) == 0) die("flags: " + *(std::string*)(result.bytes + 40));
}

// === MasterInfo of the remote master, a protobuf message encoded by hand
void varint(std::string& out, unsigned long v) {
  for (; v > 127; v >>= 7) out.push_back(char(v | 128));
  out.push_back(char(v));
}
void bytes(std::string& out, int field, const std::string& s) {
  varint(out, field << 3 | 2);
  varint(out, s.size());
  out += s;
}
void number(std::string& out, int field, unsigned long v) {
  varint(out, field << 3);
  varint(out, v);
}
std::string master_info(const std::string& endpoint) {
  auto colon = endpoint.find(':');
  if (colon == std::string::npos) die("want IP:PORT, got " + endpoint);
  std::string ip = endpoint.substr(0, colon);
  int port = atoi(endpoint.c_str() + colon + 1);
  if (port < 1 || port > 65535) die("not a port: " + endpoint);
  unsigned address = 0;
  if (inet_pton(AF_INET, ip.c_str(), &address) != 1) die("not an IPv4 address: " + ip);
  std::string nested, out;
  bytes(nested, 1, ip), bytes(nested, 2, ip), number(nested, 3, port);
  bytes(out, 1, "remote"), number(out, 2, address), number(out, 3, port);
  bytes(out, 4, "master@" + endpoint), bytes(out, 5, ip), bytes(out, 6, "1.11.0"), bytes(out, 7, nested);
  return out;
}

// === The detector's hook. The library's calls to itself are bound inside it, where no symbol of ours gets in between:
// so the first instructions of the function are replaced by a jump to ours.
std::string leader;
unsigned char saved[12];
void* patched;

void write_code(const void* code) {
  long page = sysconf(_SC_PAGESIZE);
  if (mprotect((void*)((long)patched & ~(page - 1)), 2 * page, PROT_READ | PROT_WRITE | PROT_EXEC)) die(std::string("make code writable: ") + strerror(errno));
  memcpy(patched, code, sizeof saved);
}
// Runs instead of the first appointment, that of the in-process master, and puts the function back as it was.
void appoint_remote(void* detector, const void* option) {
  write_code(saved);
  if (!((google::protobuf::MessageLite*)((char*)option + 8))->ParseFromString(leader)) die("bad MasterInfo");
  appoint(detector, option);
}
void hook_detector() {
  patched = dlsym(RTLD_DEFAULT, APPOINT);
  if (patched == nullptr) die("the library has no " APPOINT ": not Mesos 1.11.0?");
  memcpy(saved, patched, sizeof saved);
  unsigned char jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};  // mov rax, target; jmp rax
  void* target = (void*)appoint_remote;
  memcpy(jump + 2, &target, 8);
  write_code(jump);
}

// What a Mesos agent's container logger does by default and local mode leaves out: an executor's output goes into
// files of its sandbox. The launch is described as JSON, the executor's environment in it.
void log_into_sandbox() {
  const char* given = getenv("MESOS_CONTAINERIZER_LAUNCH_INFO");
  std::string info = given == nullptr ? "" : given, value = "\"value\":\"";
  size_t from = info.find("\"MESOS_DIRECTORY\"");
  if (from != std::string::npos) from = info.find(value, from);
  if (from == std::string::npos) die("the launch names no sandbox: " + info);
  from += value.size();
  std::string sandbox = info.substr(from, info.find('"', from) - from);
  for (size_t at; (at = sandbox.find("\\/")) != std::string::npos;) sandbox.erase(at, 1);  // JSON may escape slashes
  for (auto [name, target] : {std::pair{"/stdout", 1}, {"/stderr", 2}}) {
    int file = open((sandbox + name).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0 || dup2(file, target) < 0) die("open " + sandbox + name + ": " + strerror(errno));
  }
}

int containerizer_launch(int argc, char** argv) {
  log_into_sandbox();
  alignas(16) static char object[65536];
  *(void**)object = &_ZTVN5mesos8internal5slave24MesosContainerizerLaunchE[2];
  new (object + 8) std::string("launch");
  void** methods = *(void***)object;  // D1, D0, execute, getFlags
  void* flags_base = ((void* (*)(void*))methods[3])(object);
  long base_offset = (long)_ZTVN5mesos8internal5slave24MesosContainerizerLaunch5FlagsE[0];
  _ZN5mesos8internal5slave24MesosContainerizerLaunch5FlagsC1Ev((char*)flags_base - base_offset);
  load_from_environment(flags_base, "MESOS_CONTAINERIZER_", argc - 1, argv + 1);
  return ((int (*)(void*))methods[2])(object);
}

}  // namespace

int main(int argc, char** argv) {
  if (std::string(basename(argv[0])) == "mesos-containerizer") return containerizer_launch(argc, argv);
  std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "agent" && argc == 3) {
    leader = master_info(argv[2]);
    setenv("MESOS_NUM_SLAVES", "1", 1);
    hook_detector();
  } else if (mode == "master" && argc == 2) {
    setenv("MESOS_NUM_SLAVES", "0", 1);
  } else {
    die("usage: mesos-node master | mesos-node agent IP:PORT");
  }
  alignas(16) static char flags[65536];
  _ZN5mesos8internal5local5FlagsC1Ev(flags);
  void* base = upcast(flags, &_ZTIN5mesos8internal5local5FlagsE, &_ZTIN5flags9FlagsBaseE);
  if (base == nullptr) die("local::Flags has no FlagsBase: not Mesos 1.11.0?");
  const char* name[] = {"mesos-local", nullptr};
  load_from_environment(base, "MESOS_", 1, name);
  // Who answers paths without an actor's name, such as /state.
  process::initialize(Option<std::string>(mode == "agent" ? "slave(1)" : "master"), Option<std::string>(), Option<std::string>());
  local_launch(flags, nullptr);
  for (;;) pause();
}
