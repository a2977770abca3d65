"""Room 5, readings: the k active latents of every token, what each does in each trace, and how well the SAE fits.

Takes traces, model and one SAE; gives results/{experiment}/readings/{reader}/{site}/{condition}/{block}/ with
activations, features and reconstruction (parquet): one pass of the model, one job. A site is the SAE's hookpoint, or
hookpoint@residual_in / hookpoint@residual_out where config reads it off its site; reconstruction is measured at these
and at other blocks too.
"""


rule read:
    input:
        traces=of_reader(paths.TRACES),
        manifest=of_reader(paths.MANIFEST),
        model=ancient(of_reader(paths.MODEL)),
        sae_config=sae_of_site(paths.SAE_CONFIG),
        sae_weights=sae_of_site(paths.SAE_WEIGHTS),
        sae_info=sae_of_site(paths.SAE_INFO),
    output:
        activations=paths.ACTIVATIONS,
        features=paths.FEATURES,
        reconstruction=paths.RECONSTRUCTION,
    log:
        "<logs>/readings/<reading>.log",
    benchmark:
        "<benchmarks>/readings/<reading>.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=minutes(60),
        mem_mb=gigabytes(8),
    params:
        **settings("read.py", model="dtype"),
    script:
        "../scripts/read.py"
