# Every results table of ActionFormer, from publisher's file to page. Targets and includes only.
#
#   snakemake --cores all                                          the demo edition
#   snakemake --cores all --config edition=paper                   the published features, 14 rows x 3 seeds
#   snakemake --cores all results/demo/tables/thumos14.md          one table
#   snakemake --cores all --config 'rows=[thumos14_i3d]'           one row
#   snakemake --cores all --config experiment=my.yaml              an experiment of one's own (docs/own-dataset.md)
#   snakemake --cores all --config results=results.zip             the pages of an archive (docs/lineage.md)


configfile: workflow.source_path("params/workflow.yaml")


# the environment that --sdm apptainer deploys
if config["container"]:

    container: config["container"]


include: "workflow/rules/environment.smk"


if config["results"]:

    include: "workflow/rules/archive.smk"

    rule all:
        default_target: True
        input:
            rules.rebuild.output.done,

else:

    include: "workflow/rules/common.smk"
    include: "workflow/rules/jobs.smk"
    include: "workflow/rules/checks.smk"
    include: "workflow/rules/fetch.smk"
    include: "workflow/rules/extract.smk"
    include: "workflow/rules/build.smk"
    include: "workflow/rules/train.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/report.smk"

    # a minute or less, or in need of the internet: on a cluster these run where Snakemake does
    localrules:
        all,
        pull,
        fetch,
        convert,
        card,
        tabulate,
        page,
        report_page,
        track,

    rule all:
        default_target: True
        input:
            page=INDEX,
            report=layout.report(EDITION),
            cards=[layout.model_card(row) for row in ROWS.values()],
            tracking=TRACKING,
