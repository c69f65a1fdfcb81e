"""What the server of `tests.faults.children` imports once, so that its children need not."""

import importlib

MODULES = (
    *("torch", "pandas", "pyarrow.compute", "pyarrow.parquet", "hotcoco", "pycocotools.mask", "skimage.draw"),
    *("skimage.measure", "scipy.optimize", "instbench.api", "instbench.layouts.locations"),
    *("instbench.layouts.ground_truth", "instbench.layouts.published", "instbench.execution.scorers"),
    *("instbench.reports.summary", "metrics.functional.average_precision", "metrics.functional.ap_engines"),
    *(
        "metrics.functional.mask_iou",
        "metrics.functional.attribute_binding",
        "metrics.functional.failure_gains",
    ),
    *("metrics.functional.points_in_mask_paper", "pyarrow.pandas_compat", "tests.faults.driver"),
    *(
        f"instbench.cli.{verb}"
        for verb in (
            *("ablate", "compare", "convert", "data", "demo", "doctor", "draw", "generate", "leaderboard"),
            *("ls", "merge", "report", "run", "score", "validate"),
        )
    ),
)

for module in MODULES:
    importlib.import_module(module)
