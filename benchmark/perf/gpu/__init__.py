"""make bench-gpu: what this GPU does with this code, in at most 8 minutes, and the options that suit it.

    make bench-gpu                                     all sections, the most important first
    make bench-gpu BUDGET=small ARGS=device=cpu        every section with tiny sizes, on any machine

Each section runs in a process of its own under a time limit, so that one which fails or hangs costs no other. It yields
facts (`fact.Fact`), which are printed as they come and written to `results/bench/NAME-OF-THE-CARD.csv` and `.jsonl`.
Images and weights are made up: nothing has to be downloaded. The last section's choice of `executor.workers_per_gpu` is
kept in the cache folder of this machine, where `executor.workers_per_gpu=auto` finds it.
"""
