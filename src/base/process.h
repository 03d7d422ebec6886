// What the running process is and has: interruption, terminal, resident memory.
#pragma once
#include <cstdint>

namespace nibble {

// From here on SIGINT and SIGTERM set a flag instead of ending the process; a second one ends it at once with
// 130.
void catch_interrupts();
bool interrupted();
// For tests: sets or clears the flag.
void set_interrupted(bool value);

bool stdout_is_terminal();
bool stderr_is_terminal();
// Columns of the terminal behind standard error; 80 when there is none.
int terminal_width();

// Resident memory now and its highest mark since start (or the last reset), in bytes.
uint64_t resident_bytes();
uint64_t peak_resident_bytes();
void reset_peak_resident();
// Gives the heap's free pages back to the system: after a phase that held much more than the next one will.
void release_free_memory();

// Seconds on a monotonic clock.
double now_seconds();

}  // namespace nibble
