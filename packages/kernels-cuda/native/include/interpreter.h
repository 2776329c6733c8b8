// The interpreter: stretches of a decode step of one sequence as one kernel that stays on every multiprocessor. docs/interpreter.md
// has the reasons and the numbers.
#pragma once
#include <map>
#include <memory>
#include <vector>
#include "attention.h"
#include "interpreter_list.h"
#include "linear_small.h"
#include "rotary.h"

/// Where an operand comes from: words of an earlier op of the list (1 …), from an element on; 0: memory, as the call says.
struct InterpreterSource {
  int op = 0;
  int64_t offset = 0;
};

/// A call that the interpreter does.
struct InterpreterOp {
  bool isAttention = false;
  SmallLinear linear{};
  AttentionCall attention{};
  QkvCall qkv{};
  InterpreterSource x, old;  // of a linear
  InterpreterSource q, k, v;  // of attention; never memory
  bool words = false;  // a later op of the list reads the result …
  bool store = false;  // … something else does, from memory
};

struct InterpreterLaunch {
  const interpreter::Instruction* list;
  int count, slots, dim, sharedBytes;
  interpreter::Control* control;
  void* words;
  int64_t wordBytes;
};

/// Words that the lists of a context share: their launches follow one another, and no two use the same tags.
struct InterpreterWords {
  ~InterpreterWords();
  char* memory = nullptr;  // Control, then words
  size_t bytes = 0;
};

/// A list in device memory. It must outlive the graphs that it is launched in.
struct InterpreterList {
  ~InterpreterList();
  InterpreterLaunch launch{};
  void* memory = nullptr;
  std::shared_ptr<InterpreterWords> words;
};

/// Lists, by handle, and the words of the latest.
struct Interpreters {
  std::map<double, std::unique_ptr<InterpreterList>> made;
  double next = 1;
  std::shared_ptr<InterpreterWords> words;
};

/// Whether the card and the driver's mode let a kernel count on all of its blocks running at once.
bool interpreterRuns(const Context& c);
/// Whether it has a case for a call, wherever its operands come from.
bool interpreterTakes(const Context& c, const SmallLinear& a);
bool interpreterTakes(const Context& c, const AttentionCall& a, const QkvCall& qkv);
/// Null where the ops do not fit together or into shared memory. Allocates and copies: not while a graph is captured.
/// lastTag: what tags of new words begin behind, for tests.
std::unique_ptr<InterpreterList> makeInterpreterList(Context& c, const std::vector<InterpreterOp>& ops, uint32_t lastTag = 0);

// of the kernel's file
bool interpreterStarts(const Context& c, int dim, int sharedBytes);
int interpreterStaticBytes(int dim);
void startInterpreter(Context& c, const InterpreterLaunch& l);
