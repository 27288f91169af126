# Roles on one resource each.

# The bucket. All who use it read and list it: of what is not there, Cloud Storage tells only who may list.
resource "google_storage_bucket_iam_member" "reads" {
  for_each = toset(["web", "pipeline", "serving", "nightly", "release"]) # release: the gate reads the canary's song

  bucket = google_storage_bucket.melodify.name
  role   = "roles/storage.objectViewer" # reads and lists objects
  member = google_service_account.this[each.value].member
}

# Each writes and deletes in its own folders alone. objectUser gives no rights away, as objectAdmin could.
resource "google_storage_bucket_iam_member" "writes" {
  for_each = {
    web      = ["web"]                                          # a track's files
    pipeline = ["batch", "nightly", "pipeline", "songs", "web"] # tasks hand on files, and write songs for whom they work
    serving  = ["songs"]                                        # over the generation that it found
    nightly  = ["datasets", "nightly", "pipeline"]              # its store is nightly/; tuning and jobs have folders of their own
  }

  bucket = google_storage_bucket.melodify.name
  role   = "roles/storage.objectUser"
  member = google_service_account.this[each.key].member

  condition {
    title      = "its-own-folders"
    expression = join(" || ", [for folder in each.value : "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.melodify.name}/objects/${folder}/\")"])
  }
}

# Executed notebooks, also when a cell failed, and reports: each into the folder of its name, so that a pull request's
# build covers nobody's record.
resource "google_storage_bucket_iam_member" "results" {
  for_each = toset(["check", "build", "nightly"])

  bucket = google_storage_bucket.results.name
  role   = "roles/storage.objectUser" # one that was interrupted is written over
  member = google_service_account.this[each.value].member

  condition {
    title      = "its-own-folder"
    expression = "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.results.name}/objects/${each.value}/\")"
  }
}

resource "google_storage_bucket_iam_member" "lists_results" {
  for_each = toset(["check", "build", "nightly"])

  bucket = google_storage_bucket.results.name
  role   = "roles/storage.legacyBucketReader" # lists: whether something is there yet is asked before it is written
  member = google_service_account.this[each.value].member
}

# Images and templates. Vertex AI and Cloud Run pull images by agents of their own, so nobody else needs to write.
resource "google_artifact_registry_repository_iam_member" "writes" {
  for_each = {
    "build images"      = google_artifact_registry_repository.images.name    # pushes images and signatures, and has its cache there
    "build pipelines"   = google_artifact_registry_repository.pipelines.name # uploads the compiled pipeline
    "release images"    = google_artifact_registry_repository.images.name    # tags what it has released; Cloud Run asks that who deploys can read
    "release pipelines" = google_artifact_registry_repository.pipelines.name # tags the template
  }

  repository = each.value
  location   = var.region
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.this[split(" ", each.key)[0]].member
}

resource "google_artifact_registry_repository_iam_member" "nightly" {
  repository = google_artifact_registry_repository.images.name
  location   = var.region
  role       = "roles/artifactregistry.reader" # asks for the digest of its commit's image
  member     = google_service_account.this["nightly"].member
}

# Links are signed by IAM's signBlob, as MELODIFY_SERVICE_ACCOUNT (cloud/store.py), so that no key is needed.
resource "google_service_account_iam_member" "signs_as" {
  for_each = {
    web     = local.web_acts_as # itself, unless jobs make its songs
    nightly = "pipeline"
  }

  service_account_id = google_service_account.this[each.value].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = google_service_account.this[each.key].member
}

# Whoever orders a job, a deployment or a revision that acts as an account must be allowed to.
resource "google_service_account_iam_member" "acts_as" {
  for_each = merge(
    {
      "release web"      = {} # new revisions of the web service, its migrations
      "release serving"  = {} # new models on the endpoint
      "nightly pipeline" = {} # pipeline and tuning jobs, the endpoint of notebook 05
    },
    var.web_profile == "gcp" ? { "web pipeline" = {} } : {}, # a job a song
  )

  service_account_id = google_service_account.this[split(" ", each.key)[1]].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.this[split(" ", each.key)[0]].member
}

# Cloud Run: the release rolls out new images and runs the migrations, and can do no more with other services.
resource "google_cloud_run_v2_service_iam_member" "release" {
  count = local.has_web

  name     = google_cloud_run_v2_service.web[0].name
  location = var.region
  role     = "roles/run.developer"
  member   = google_service_account.this["release"].member
}

# The same of the job: it gets the new image, and is run before the service does.
resource "google_cloud_run_v2_job_iam_member" "release" {
  count = local.has_web

  name     = google_cloud_run_v2_job.migrate[0].name
  location = var.region
  role     = "roles/run.developer"
  member   = google_service_account.this["release"].member
}
