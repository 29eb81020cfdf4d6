"""How programs are compiled whose speed does not matter."""

# Most of the time of these tests is LLVM's, and tiny networks need no fast code.
QUICK_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
