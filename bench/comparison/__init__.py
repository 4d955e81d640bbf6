"""What `bench/compare` is made of, bottom up:

    machine   what computer this is; what a process has used (Linux's /proc)
    tools     finds the programs that are needed, or installs them
    servers   starts processes, waits until they answer, stops them: only its own
    wire      one HTTP request over a socket; many, pipelined, to fill a store
    rivals    nginx, Redis, webdis and etcd: how they are started and spoken to
    store     nodes of Ostraca: the same, and what they say of themselves
    load      wrk, redis-benchmark and benchclient: one measurement
    figures   medians, spreads, ratios within a round
    rounds    what is measured side by side, in interleaved rounds
    lag, catchup, large, profile   what is measured of this store alone
    targets   what was to be reached
    chart     curves and bars as SVG
    tables, page   docs/performance.md
    quick     the short run, compared with the last one

Python's standard library only. A measurement is a dict (see `load.measured`); a run is a JSON file with a list of them
and what machine it was (see `run`). The page is made from that file alone.
"""
