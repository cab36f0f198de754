#!/usr/bin/env bash
# What: torch.utils.tensorboard.SummaryWriter(purge_step=N) promises that events from step N on, of a run that crashed,
#   are hidden. TensorBoard has two loaders. Its data server (the default) hides them. Its Python loader
#   (--load_fast=false, and wherever the data server has no binary) takes the first such mark of a run for the run's
#   start and hides nothing: the first restart shows its steps twice.
# Expected: 20 points by either loader. Seen with torch 2.13.0, tensorboard 2.21.0, tensorboard-data-server 0.7.2:
#   "python loader: 30 points, data server: 20 points"; and 20 by both where the first writer has announced its own
#   first step as well (purge_step=1).
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "tensorboard==2.21.0" "tensorboard-data-server==0.7.2" "numpy<3" "setuptools<81"
cat > "$folder/try.py" <<'PYTHON'
import sys
import time

from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.data.server_ingester import SubprocessServerDataIngester, get_server_binary
from tensorboard.util.grpc_util import ChannelCredsType
from torch.utils.tensorboard import SummaryWriter


def points(first_writer, folder):
    for options, steps in ((first_writer, range(1, 21)), ({"purge_step": 11}, range(11, 21))):
        with SummaryWriter(folder, **options) as writer:
            for step in steps:
                writer.add_scalar("loss", step, step)
        time.sleep(1.1)  # files are sorted by the second of their birth
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(folder)
    multiplexer.Reload()
    server = SubprocessServerDataIngester(server_binary=get_server_binary(), logdir=folder, reload_interval=0,
                                          channel_creds_type=ChannelCredsType.LOCAL)
    server.start()
    time.sleep(1)
    found = []
    for provider in (data_provider.MultiplexerDataProvider(multiplexer, folder), server.data_provider):
        runs = provider.read_scalars(context.RequestContext(), experiment_id="", plugin_name="scalars", downsample=100)
        found.append(sum(len(series) for run in runs.values() for series in run.values()))
    print(f"first writer {first_writer or 'as usual'}: python loader: {found[0]} points, data server: {found[1]} points")
    return found


usual = points({}, sys.argv[1] + "/usual")
announced = points({"purge_step": 1}, sys.argv[1] + "/announced")
sys.exit(0 if (usual, announced) == ([30, 20], [20, 20]) else 1)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
