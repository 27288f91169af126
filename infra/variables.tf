variable "project" {
  description = "Google Cloud project that all is made in; MELODIFY_PROJECT."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "The project's id has 6 to 30 small letters, digits and hyphens, such as my-project-123; not its name or number."
  }
}

variable "region" {
  description = "Region of everything, bucket and jobs alike; MELODIFY_LOCATION."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "Jobs and endpoints need a region, such as us-central1; a multi-region (us, eu) or a zone is none."
  }
}

variable "image" {
  description = "Image of the pipeline's components and of the endpoint, by digest, for the outputs: a person's MELODIFY_IMAGE. The web application's own is in its image."
  type        = string
  default     = ""

  validation {
    condition     = var.image == "" || can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Name the image by its digest (…@sha256:…): a tag can be moved to another image."
  }
}

variable "web_image" {
  description = "Image of the web application, by digest. Empty: no service yet, for the first apply, which makes the repository."
  type        = string
  default     = ""

  validation {
    condition     = var.web_image == "" || can(regex("@sha256:[0-9a-f]{64}$", var.web_image))
    error_message = "Name the image by its digest (…@sha256:…): a tag can be moved to another image."
  }
}

variable "web_profile" {
  description = "Who makes a visitor's song: `local`, the models in the web service itself; or `gcp`, OpenAI, Gemini and pipeline jobs, which are paid."
  type        = string
  default     = "local"

  validation {
    condition     = contains(["local", "gcp"], var.web_profile)
    error_message = "The profile is local or gcp."
  }
}

variable "web_host" {
  description = "Name by which the web application is reached; Cloud Run's own if empty."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z0-9-]+(\\.[a-z0-9-]+)+)?$", var.web_host))
    error_message = "A host name without https:// and path, such as music.example.org."
  }
}

variable "web_instances" {
  description = "Least and most machines of the web service. At least one, as songs are made beside the pages."
  type        = object({ least = number, most = number })
  default     = { least = 1, most = 3 }

  validation {
    condition     = var.web_instances.least >= 1 && var.web_instances.most >= var.web_instances.least && var.web_instances.most <= 20
    error_message = "At least 1, at most 20, and not fewer at most than at least."
  }
}

variable "web_is_public" {
  description = "Whether everybody may open the pages; otherwise only who has roles/run.invoker."
  type        = bool
  default     = true
}

variable "database_tier" {
  description = "Machine of the database. The smallest is enough: a row a track, polled every second."
  type        = string
  default     = "db-g1-small"

  validation {
    condition     = startswith(var.database_tier, "db-")
    error_message = "A machine of Cloud SQL, such as db-g1-small or db-custom-1-3840."
  }
}

variable "keep_days" {
  description = "Days after which songs, datasets and jobs' files in the bucket are deleted; MELODIFY_KEEP_DAYS."
  type        = number
  default     = 30

  validation {
    condition     = var.keep_days >= 7 && var.keep_days <= 3650
    error_message = "7 to 3650 days: the web application keeps a track for 7."
  }
}

variable "github_repository" {
  description = "OWNER/NAME whose workflows, in its environment `release`, may act as the release's account without a key, and whose address images have as a label; nobody's if empty."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([A-Za-z0-9-]+/[A-Za-z0-9._-]+)?$", var.github_repository))
    error_message = "OWNER/NAME, without https://github.com/."
  }
}

variable "build_repository" {
  description = "Cloud Build's name of the connected repository, projects/…/locations/…/connections/…/repositories/…; no triggers if empty."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(projects/[^/]+/locations/[^/]+/connections/[^/]+/repositories/[^/]+)?$", var.build_repository))
    error_message = "Its full name: gcloud builds repositories list --connection=… --region=…"
  }
}

variable "nightly_budget" {
  description = "US dollars that the nightly run may spend on its teacher, and on tuning, each; 0: it does not run."
  type        = number
  default     = 0

  validation {
    condition     = var.nightly_budget >= 0 && var.nightly_budget <= 500
    error_message = "0 to 500 dollars a night."
  }
}

variable "alert_email" {
  description = "Who is told of errors and of the budget."
  type        = string

  validation {
    condition     = can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", var.alert_email))
    error_message = "An e-mail address."
  }
}

variable "billing_account" {
  description = "Billing account of the project, 012345-678901-ABCDEF, for the budget; no budget if empty."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6})?$", var.billing_account))
    error_message = "Three groups of six hexadecimal digits; see gcloud billing accounts list."
  }
}

variable "monthly_budget" {
  description = "What, in the billing account's currency, the project should cost a month at most: half, nine tenths, all, and what it is heading for, are told by e-mail. It stops nothing."
  type        = number
  default     = 150

  validation {
    condition     = var.monthly_budget >= 1 && floor(var.monthly_budget) == var.monthly_budget
    error_message = "A whole number, from 1."
  }
}
