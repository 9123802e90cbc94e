#!/usr/bin/env bash
# This checks and measures on a GPU that can be had for minutes: in order of priority, each step under a time limit of its
# own, its output in OUT as it comes, and all of OUT packed in OUT.tar.gz at the end of each step.
#
#     bash bench/on_gpu.sh OUT [STEP...]      # default: every step but compile, whose limits are 14 minutes in all
#     bash bench/on_gpu.sh --dry-run OUT [STEP...]    # the same commands on a CPU, on tiny sizes; default: every step
#
# Where TRITON_CACHE_DIR holds what was compiled elsewhere, that is not compiled again; the step compile needs no GPU.
set -u
dry="" failed=0 steps="device smoke tests bench linear sweep ncu sanitizer offsets"
if [ "${1-}" = --dry-run ]; then
    dry="python3 -m tests.gpu_stand_in" steps="$steps compile"
    echo "A dry run: a CPU stands for the GPU, no time says anything, and the tests are only collected."
    shift
fi
if [[ -z "${1-}" || $1 == -* ]]; then
    echo "usage: bash bench/on_gpu.sh [--dry-run] OUT [STEP...]" >&2
    exit 2
fi
out=$(realpath -m "$1")
shift
mkdir -p "$out" || exit
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # nproc obeys these, which are for the threads of a process

step() { # NAME SECONDS COMMAND...: the end of its output is shown
    local name=$1 seconds=$2 start=$SECONDS code=0
    shift 2
    [ -z "$dry" ] || seconds=$((10 * seconds)) # a CPU may be slow
    PYTHONUNBUFFERED=1 timeout --signal=INT --kill-after=15 "$seconds" $dry "$@" >"$out/$name.txt" 2>&1 || code=$?
    echo "== $name: exit $code, $((SECONDS - start)) s; $*"
    tail -n "${lines:-8}" "$out/$name.txt"
    tar -czf "$out.part" -C "$out" . && mv "$out.part" "$out.tar.gz"
    [ "$code" = 0 ] || failed=1
}

tests() { # NAME SECONDS ARGUMENT...
    local name=$1 seconds=$2
    shift 2
    lines=40 step "$name" "$seconds" python3 -m pytest -q -m gpu -W default --all -p no:cacheprovider --tb=short -n "$cores" \
        --maxprocesses="$cores" --dist=load "$@"
}

bench() { # NAME SECONDS MEASUREMENTS
    local losses="forward+backward and not (taylor or divide or summation or difftopk)"
    lines=60 step "$1" "$2" python3 -m pytest bench/ --benchmark-only -q -W default -p no:cacheprovider --tb=short \
        --benchmark-json="$out/$1.json" -k "${3/of_losses/$losses}"
}

run() {
    case $1 in
    device) lines=40 step device 30 python3 -m bench.device ;;
    smoke) lines=60 step smoke 105 python3 -m tests.smoke ;;
    compile) step compile 200 python3 -m bench.sweep --compile "$cores" ;;
    tests) tests tests 110 tests/test_gpu.py tests/test_gpu_citizen.py -k "not two_to_the_31" ;;
    offsets) tests offsets 45 tests/test_gpu.py tests/test_gpu_citizen.py -k two_to_the_31 -n 1 ;;
    sweep) lines=70 step sweep 110 python3 -m bench.sweep --table --out "$out/sweep.jsonl" ;;
    ncu)
        lines=1 step ncu 30 ncu --clock-control none --kernel-name regex:loss_kernel --section SpeedOfLight \
            --section SchedulerStats --section WarpStateStats --section Occupancy --section LaunchStats \
            --section MemoryWorkloadAnalysis --metrics regex:smsp__average_warps_issue_stalled.*_per_issue_active python3 -m bench.sweep --once \
            -k "smooth_svm-n(1000|4096|32768)-k5|n131072-k5-float32|n1000-k1[06]-float32|lq_loss-n1000"
        ;;
    sanitizer)
        for tool in memcheck racecheck; do
            step "$tool" 25 compute-sanitizer --tool "$tool" \
                python3 -m tests.smoke --repeats 0 -k "n21-k10|svm-n1000-k5-bfloat16"
        done
        ;;
    bench) # two parts of a run
        bench run-1 110 "test_eager_call or (of_losses and float32 and k5-b)"
        bench run-2 150 "of_losses and (bfloat16 and k5-b or n1000 and float32 and not (k5-b or compiled or Liger))"
        ;;
    linear)
        lines=40 step linear 100 python3 -m bench.linear --out "$out" --dtype bfloat16 --rounds 1 \
            --shape 4096,512,32768 8192,4096,131072
        ;;
    *) echo "no step $1" >&2 && exit 2 ;;
    esac
}

for name in "${@:-$steps}"; do
    for each in $name; do run "$each"; done
done
exit "$failed"
