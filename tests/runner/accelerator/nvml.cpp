// A driver's management library with the cards that NVML_CARDS describes, for tests of what is read from it:
// "A100:80" is a card of 80 GiB, "A100:80/10/20" one that is partitioned into 10 and 20 GiB.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace {
struct Handle {
    std::string name, uuid;
    unsigned long long gib;
    std::vector<Handle> partitions;
};

std::vector<Handle>& cards() {
    static std::vector<Handle> all = [] {
        std::vector<Handle> found;
        std::istringstream text(getenv("NVML_CARDS") ? getenv("NVML_CARDS") : "");
        for (std::string word; text >> word;) {
            auto colon = word.find(':'), n = found.size();
            std::istringstream sizes(word.substr(colon + 1));
            Handle card{word.substr(0, colon), "GPU-" + std::to_string(n) + "0000000", 0, {}};
            std::string size;
            std::getline(sizes, size, '/');
            card.gib = std::stoull(size);
            while (std::getline(sizes, size, '/'))
                card.partitions.push_back({card.name + " MIG", "MIG-" + std::to_string(n) + std::to_string(card.partitions.size() + 1) + "000000", std::stoull(size), {}});
            found.push_back(card);
        }
        return found;
    }();
    return all;
}
constexpr int NOT_FOUND = 6, UNSUPPORTED = 3, DRIVER_NOT_LOADED = 9;
struct Memory { unsigned version; unsigned long long total, reserved, free, used; };
struct Process { unsigned pid; unsigned long long used; unsigned instance, compute; };
}  // namespace

extern "C" {
int nvmlInitWithFlags(unsigned) { return getenv("NVML_CARDS") ? 0 : DRIVER_NOT_LOADED; }
int nvmlInit_v2() { return nvmlInitWithFlags(0); }
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int code) { return code == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "an error"; }
int nvmlDeviceGetCount_v2(unsigned* count) { *count = cards().size(); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned n, Handle** handle) { *handle = &cards()[n]; return 0; }
int nvmlDeviceGetHandleByUUID(const char* uuid, Handle** handle) {
    for (auto& card : cards())
        if (card.uuid == uuid) { *handle = &card; return 0; }
    return NOT_FOUND;
}
int nvmlDeviceGetMigMode(Handle* card, unsigned* current, unsigned* pending) {
    if (card->name == "T4") return UNSUPPORTED;
    *current = *pending = !card->partitions.empty();
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(Handle*, unsigned* count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(Handle* card, unsigned n, Handle** handle) {
    if (n >= card->partitions.size()) return NOT_FOUND;
    *handle = &card->partitions[n];
    return 0;
}
int nvmlDeviceGetUUID(Handle* handle, char* text, unsigned size) { snprintf(text, size, "%s", handle->uuid.c_str()); return 0; }
int nvmlDeviceGetName(Handle* handle, char* text, unsigned size) { snprintf(text, size, "%s", handle->name.c_str()); return 0; }
int nvmlDeviceGetMemoryInfo_v2(Handle* handle, Memory* memory) {
    memory->total = handle->gib << 30;
    memory->reserved = 512ull << 20;
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Handle*, unsigned* count, Process* found) {
    const char* text = getenv("NVML_PROCESS");  // its number and bytes
    if (!text) { *count = 0; return 0; }
    if (!found) { *count = 1; return 7; }
    *count = 1;
    return sscanf(text, "%u %llu", &found->pid, &found->used) == 2 ? 0 : NOT_FOUND;
}
}
